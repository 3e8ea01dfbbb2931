"""What this machine's processor is called, and how much of it is ours. Imports no torch."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path


def cpu_name() -> str:
    """Return the processor's model name, or the nearest thing the system tells of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def usable_cpus() -> int:
    """Return how many CPUs this process may keep busy, at least 1.

    The fewest of those that its affinity allows, the quotas of its control groups (rounded up), and
    SLURM_CPUS_PER_TASK, which a scheduler sets without always enforcing it.
    """
    counts = [os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):
        counts.append(len(os.sched_getaffinity(0)))
    counts += _quotas()
    granted = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if granted.isdecimal():
        counts.append(int(granted))
    return max(1, min(counts))


def _quotas(
    root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")
) -> list[int]:
    """Return the CPU quotas of this process's control group and those above it, in whole CPUs.

    Version 2 has "QUOTA PERIOD" in cpu.max, or "max"; version 1 has two files, -1 for no quota.
    """
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    quotas = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        group = root / controllers / path.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(root):
                break
            quotas += _quota(folder)
    return quotas


def _quota(folder: Path) -> list[int]:
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text(encoding="utf-8").split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text(encoding="utf-8")
            period = (folder / "cpu.cfs_period_us").read_text(encoding="utf-8")
        return [math.ceil(int(quota) / int(period))] if int(quota) > 0 else []
    except (OSError, ValueError):  # no such group here, or "max"
        return []
