"""A threshold search that keeps a journal, for benchmarks/faults.py.

    python benchmarks/journaled_search.py JOURNAL [FLAGS OF binary_search.py ...]

Appends a line (architecture, repeat, N) to the file JOURNAL before a probe is submitted, so that
after a kill it can be told which probes were in flight.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # this checkout's code; machine.py would import torch for it
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from command_line.parser import run
from threshold_search import binary_search
from threshold_search.executors.executor import Executor
from threshold_search.options import EXECUTORS
from training.probe import Probe


def write_down(path: str, probes: Sequence[Probe]) -> None:
    """Append the lines of ``probes`` in one write."""
    lines = [f"{p.architecture.name} {p.repeat} {p.n}\n" for p in probes]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, "".join(lines).encode())
    os.close(descriptor)


def journaled(kind: type[Executor], path: str) -> type[Executor]:
    """Return an executor like ``kind`` that writes down what it is given."""

    class Journaled(kind):  # type: ignore[misc, valid-type]
        """See above."""

        def submit(self, job: list[Probe]) -> None:
            """Write the probes down, then start them."""
            write_down(path, job)
            super().submit(job)

    return Journaled


if __name__ == "__main__":
    journal = os.path.abspath(sys.argv.pop(1))
    for name, kind in list(EXECUTORS.items()):
        EXECUTORS[name] = journaled(kind, journal)  # type: ignore[index, arg-type]
    run(binary_search.main)
