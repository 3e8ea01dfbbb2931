"""Which processes belong to a search that benchmarks/faults.py kills (Linux)."""

from __future__ import annotations

import os
import time
from pathlib import Path

GONE_SECONDS = 120.0  # within which nothing of a killed search may still run
SERVES = "ray::serve"  # how Ray names a process that runs a job


def _field(pid: int, name: str) -> str:
    """Return a file of /proc as text, empty if the process is gone."""
    try:
        return Path("/proc", str(pid), name).read_bytes().replace(b"\0", b"\n").decode()
    except (OSError, UnicodeDecodeError):
        return ""


def _running() -> dict[int, tuple[int, str]]:
    """Return the parent of every process that has not ended, and when it began."""
    found = {}
    for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))):
        state, *numbers = _field(pid, "stat").rpartition(")")[2].split() or ["Z"]
        if state != "Z":
            found[pid] = int(numbers[0]), numbers[18]
    return found


def _below(ancestors: set[int], running: dict[int, tuple[int, str]]) -> list[int]:
    """Return the ``running`` processes that descend from one of ``ancestors``."""

    def is_below(pid: int) -> bool:
        while pid in running:
            pid, _ = running[pid]
            if pid in ancestors:
                return True
        return False

    return [pid for pid in running if is_below(pid)]


class Family:
    """A process and what it started, as far as it was seen before a parent ended."""

    def __init__(self, ancestor: int) -> None:
        """Look for the first time, while the ancestor runs."""
        self._members = {pid: begin for pid, (_, begin) in _running().items() if pid == ancestor}
        self.running()

    def running(self) -> list[int]:
        """Return those that have not ended, and from now on know their new descendants too."""
        now = _running()
        # A number that has begun at another time is another process.
        alive = {pid for pid, begin in self._members.items() if now.get(pid, (0, ""))[1] == begin}
        new = _below(alive, now)
        self._members.update({pid: now[pid][1] for pid in new})
        return sorted(alive | set(new))


def local_workers(driver: int) -> list[int]:
    """Return the worker processes of a driver."""
    below = _below({driver}, _running())
    return [pid for pid in below if "spawn_main" in _field(pid, "cmdline")]


def cluster_workers(raylet: int | None = None) -> list[int]:
    """Return the processes that run a job in the Ray cluster of this process, or on one node."""
    below = _below({raylet or os.getpid()}, _running())
    return [pid for pid in below if _field(pid, "cmdline").startswith(SERVES)]


def left_running(family: Family) -> int:
    """Return how many processes of a killed search do not end by themselves."""
    until = time.monotonic() + GONE_SECONDS
    while (left := family.running() + cluster_workers()) and time.monotonic() < until:
        time.sleep(0.05)
    return len(left)
