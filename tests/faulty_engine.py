"""An engine that fails in some way, at first or always, in whatever process trains with it."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from engines.engine import Engine
from threshold_search.executors import executor
from threshold_search.executors import local as workers
from training.errors import OutOfMemory, UserError
from training.probe import Outcome


def outcome_of(probe):
    """Return what such an engine answers: a threshold of 20 sequences."""
    memorized = probe.n <= 20
    reason = "perfect" if memorized else "max_epochs"
    return Outcome(memorized, 1.0 if memorized else 0.5, 0.25, 7, reason, 0.5)


@dataclass(frozen=True)
class FaultyEngine(Engine):
    """Answers :func:`outcome_of`; its first ``times`` jobs end as ``fault`` says.

    It always dies of ``deadly`` sequences or more, and takes ``seconds`` for two.

    ``folder`` gets a file for every job, named by its number, with the process and the sizes.
    """

    folder: str = ""
    fault: str = ""
    times: int = 0
    deadly: int = 10**9
    seconds: float = 0.0

    name: ClassVar[str] = "faulty"

    @property
    def label(self):
        """See Engine."""
        return " engine=faulty"

    def jobs(self):
        """Return the (process, size) of every job so far, in their order."""
        files = sorted(Path(self.folder).iterdir(), key=lambda path: int(path.name))
        return [tuple(map(int, path.read_text().split())) for path in files]

    def _train(self, probes, on_epoch):
        (probe,) = probes
        number = self._begin(f"{os.getpid()} {probe.n}")
        if probe.n >= self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if probe.n == 2:
            time.sleep(self.seconds)
        if number < self.times:
            if self.fault == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            elif self.fault == "hangs":
                time.sleep(600)
            elif self.fault == "refuses":
                raise UserError("not this one")
            elif self.fault == "has no memory":
                raise MemoryError
            raise ZeroDivisionError("a mistake")
        return [(outcome_of(probe), dict)]

    def _begin(self, text):
        """Write the next file; return its number."""
        number = len(os.listdir(self.folder))
        while True:
            try:
                with open(Path(self.folder, str(number)), "x") as file:
                    file.write(text)
                return number
            except FileExistsError:
                number += 1


def serve_with_little_memory(connection, software):
    """Serve as a worker whose memory is too short as long as there are files in $TOO_SHORT."""
    real = executor.import_torch

    def import_torch():
        for path in Path(os.environ["TOO_SHORT"]).iterdir():
            path.unlink()
            raise OutOfMemory("not enough memory to import torch")
        real()

    executor.import_torch = import_torch
    workers.serve(connection, software)
