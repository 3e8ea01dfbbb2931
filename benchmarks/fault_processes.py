"""Which processes belong to a search that benchmarks/faults.py kills (Linux)."""

from __future__ import annotations

import os
import time
from pathlib import Path

MARK = "FAULTS_TRIAL"  # a variable that a search and all that it starts have in their environment
GONE_SECONDS = 120.0  # within which nothing of a killed search may still run
SERVES = "ray::serve"  # how Ray names a process that runs a job


def _field(pid: int, name: str) -> str:
    """Return a file of /proc as text, empty if the process is gone."""
    try:
        return Path("/proc", str(pid), name).read_bytes().replace(b"\0", b"\n").decode()
    except (OSError, UnicodeDecodeError):
        return ""


def _running() -> dict[int, int]:
    """Return the parent of every process that has not ended."""
    parents = {}
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        state, parent, *_ = _field(pid, "stat").rpartition(")")[2].split() or ("Z", "0")
        if state != "Z":
            parents[pid] = int(parent)
    return parents


def _descendants(ancestor: int) -> list[int]:
    parents = _running()

    def is_below(pid: int) -> bool:
        while pid in parents and pid != ancestor:
            pid = parents[pid]
        return pid == ancestor

    return [pid for pid in parents if pid != ancestor and is_below(pid)]


def marked(mark: str) -> list[int]:
    """Return the running processes of the search with this mark."""
    line = f"{MARK}={mark}"
    return [pid for pid in _running() if line in _field(pid, "environ").splitlines()]


def local_workers(driver: int) -> list[int]:
    """Return the worker processes of a driver."""
    return [pid for pid in _descendants(driver) if "spawn_main" in _field(pid, "cmdline")]


def cluster_workers(raylet: int | None = None) -> list[int]:
    """Return the processes that run a job in the Ray cluster of this process, or on one node."""
    below = _descendants(raylet or os.getpid())
    return [pid for pid in below if _field(pid, "cmdline").startswith(SERVES)]


def left_running(mark: str) -> int:
    """Return how many processes of a killed search do not end by themselves."""
    until = time.monotonic() + GONE_SECONDS
    while (left := marked(mark) + cluster_workers()) and time.monotonic() < until:
        time.sleep(0.05)
    return len(left)
