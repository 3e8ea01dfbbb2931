"""Whether this machine has a CPU and memory to spare for work that nobody waits for. No torch."""

from __future__ import annotations

import math
import os
import time

from engines.cpu import usable_cpus
from engines.memory import available_memory

LOAD_SECONDS = 60.0  # over which the system averages its load
ROUNDING = 0.5  # CPUs: the system's average and ours do not agree to the last digit
PROCESS_BYTES = 2**30  # left for a process to start; ours take a fifth of that before they train


class SpareCpus:
    """Tells the load of others from that of our own jobs, by averaging these as the system does."""

    def __init__(self) -> None:
        self._jobs, self._own, self._time = 0, 0.0, time.monotonic()
        self._usable = usable_cpus()

    def note(self, jobs: int) -> None:
        """Say that ``jobs`` of ours run from now on, one CPU each."""
        now = time.monotonic()
        share = math.exp((self._time - now) / LOAD_SECONDS)
        self._own = self._own * share + self._jobs * (1 - share)
        self._jobs, self._time = jobs, now

    def has_one(self, jobs: int) -> bool:
        """Return whether there is a CPU besides those of ``jobs`` of ours and of everyone else."""
        self.note(jobs)
        try:
            load = os.getloadavg()[0]
        except (AttributeError, OSError):  # Windows has none
            load = self._own
        others = max(0.0, load - self._own)
        # The load is the machine's, and so are its CPUs; of them we may have fewer.
        is_ours = jobs + 1 <= self._usable
        return is_ours and jobs + 1 + others <= (os.cpu_count() or 1) + ROUNDING


def has_memory_for_a_process() -> bool:
    """Return whether another process of ours would leave the rest enough memory."""
    available = available_memory()
    return available is None or available > PROCESS_BYTES
