"""A threshold search that keeps a journal, for benchmarks/faults.py.

    python benchmarks/journaled_search.py JOURNAL [FLAGS OF binary_search.py ...]

Appends a line (architecture, repeat, N) to the file JOURNAL before a probe is submitted, or begins
in the job of another one, so that after a kill it can be told which probes were in flight.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # this checkout's code; machine.py would import torch for it
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from command_line.parser import run
from threshold_search import binary_search
from threshold_search.executors.executor import Executor, NextProbe
from threshold_search.run import EXECUTORS
from training.probe import Outcome, Probe


def write_down(path: str, probes: Sequence[Probe]) -> None:
    """Append the lines of ``probes`` in one write."""
    lines = [f"{p.architecture.name} {p.repeat} {p.n}\n" for p in probes]
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, "".join(lines).encode())
    os.close(descriptor)


@dataclass(frozen=True)
class JournaledNext:
    """What comes ``then``, written down by the worker that goes on with it, on this machine."""

    then: NextProbe
    path: str

    def __call__(self, outcomes: Sequence[Outcome]) -> Probe | None:
        """Return the next probe."""
        probe = self.then(outcomes)
        if probe is not None:
            write_down(self.path, [probe])
        return probe


def journaled(kind: type[Executor], path: str) -> type[Executor]:
    """Return an executor like ``kind`` that writes down what it is given."""

    class Journaled(kind):  # type: ignore[misc, valid-type]
        """See above."""

        def submit(self, job: list[Probe], then: NextProbe | None = None) -> None:
            """Write the probes down, then start them."""
            write_down(path, job)
            super().submit(job, then and JournaledNext(then, path))

    return Journaled


if __name__ == "__main__":
    journal = os.path.abspath(sys.argv.pop(1))
    for name, kind in list(EXECUTORS.items()):
        EXECUTORS[name] = journaled(kind, journal)  # type: ignore[index, arg-type]
    run(binary_search.main)
