"""How much memory there is to train in, and allocations that fail instead of swamping the machine.

A kernel may promise more memory than there is and kill whoever uses it. Imports no torch.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engines.control_groups import OWN, ROOT, control_groups, numbers

PROC = Path("/proc")
# A weight, its gradient, the optimiser's two moments: float32, whatever the engine.
BYTES_PER_PARAMETER = 16
# Of what is available: what else the machine has to do needs some meanwhile.
SHARE = 0.95
# A model of the published sizes needs less, and is never refused.
ENOUGH = 2**28


def available_memory(proc: Path = PROC, root: Path = ROOT, own: Path = OWN) -> int:
    """Return how many bytes this process could still use.

    On Linux what the machine and the process's control groups have left; elsewhere all that the
    machine has.
    """
    machine = _fields(proc / "meminfo")
    if "MemAvailable" not in machine:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    left = [1024 * (machine["MemAvailable"] + machine.get("SwapFree", 0))]
    for folder in control_groups("memory", root, own):
        # The names of version 2, then of version 1.
        limit = numbers(folder / "memory.max") or numbers(folder / "memory.limit_in_bytes")
        used = numbers(folder / "memory.current") or numbers(folder / "memory.usage_in_bytes")
        if limit and used:
            # Cached files are counted as used, and given up for what asks.
            parts = _fields(folder / "memory.stat")
            cached = sum(
                parts.get(f"total_{name}", parts.get(name, 0))
                for name in ("inactive_file", "active_file")
            )
            left.append(limit[0] - max(0, used[0] - cached))
    return max(0, min(left))


@contextmanager
def within_memory(parameters: int = 0) -> Iterator[None]:
    """Let allocations fail (MemoryError) that would take more memory than there is.

    So many ``parameters`` that they cannot be trained, by whatever engine, fail at once. The rest
    is on Linux alone: a limit of the process (RLIMIT_DATA), which is as before at the end.
    """
    allowed = max(ENOUGH, int(SHARE * available_memory()))
    if parameters * BYTES_PER_PARAMETER > allowed:
        raise MemoryError
    used = _fields(PROC / "self" / "status").get("VmData")
    if sys.platform != "linux" or used is None:
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [1024 * used + allowed]
    limits += [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _fields(path: Path) -> dict[str, int]:
    """Return the numbers of a file of "NAME VALUE" lines, by name."""
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
    except OSError:
        return {}
    return {w[0].rstrip(":"): int(w[1]) for w in lines if len(w) > 1 and w[1].isdecimal()}
