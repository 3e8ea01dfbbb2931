"""What this machine's processor is called, and how much of it is ours. Imports no torch."""

from __future__ import annotations

import math
import os
import platform
from pathlib import Path

from engines.control_groups import OWN, ROOT, control_groups, numbers


def cpu_name() -> str:
    """Return the processor's model name, or the nearest thing the system tells of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def usable_cpus(root: Path = ROOT, own: Path = OWN) -> int:
    """Return how many CPUs this process may keep busy, at least 1.

    The fewest of those that its affinity allows, the quotas of its control groups (rounded up), and
    SLURM_CPUS_PER_TASK, which a scheduler sets without always enforcing it.
    """
    counts = [os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):
        counts.append(len(os.sched_getaffinity(0)))
    counts += [count for folder in control_groups("cpu", root, own) for count in _quota(folder)]
    granted = os.environ.get("SLURM_CPUS_PER_TASK", "").strip()
    if granted.isdecimal() and int(granted) > 0:
        counts.append(int(granted))
    return max(1, min(counts))


def _quota(folder: Path) -> list[int]:
    """Return the quota of a control group in whole CPUs, if it has one.

    Version 2 has "QUOTA PERIOD" in cpu.max, or "max"; version 1 has two files, -1 for no quota.
    """
    values = numbers(folder / "cpu.max") or (
        numbers(folder / "cpu.cfs_quota_us") + numbers(folder / "cpu.cfs_period_us")
    )
    if len(values) != 2 or min(values) <= 0:
        return []
    quota, period = values
    return [math.ceil(quota / period)]
