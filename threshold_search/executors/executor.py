"""What trains the driver's probes: the base of executors, and what each does with a job.

A job is some probes of one architecture and protocol, which train together. Imports no torch.
"""

from __future__ import annotations

import os
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

from command_line.interrupts import import_torch
from training.errors import OutOfMemory, UserError
from training.probe import Kind, Outcome, Probe

if TYPE_CHECKING:
    from engines.engine import Engine

# Of a job: its outcomes, or why there are none. A text is a traceback, a mistake in the code.
Answer = list[tuple[Probe, Outcome]] | OutOfMemory | UserError | str
DEADLINE_SECONDS = 86_400.0
LOSSES_ALLOWED = 3  # of a job: it may be what killed its workers
NO_MEMORY_TO_START = 79  # exit status of a worker


class Executor(ABC):
    """Trains jobs somewhere; a context manager that closes itself on exit.

    No probe is lost: every one that was submitted comes out of ``wait``, once. A job whose worker
    dies, or takes longer than the executor's deadline, starts again.
    """

    def __init__(self, engines: Mapping[Kind, Engine], deadline: float) -> None:
        """Take the engine of every kind of probes: no worker chooses for itself.

        A job that takes more than ``deadline`` seconds is taken for lost.
        """
        self._engines, self._deadline = engines, deadline
        self._finished: list[tuple[Probe, Outcome | OutOfMemory]] = []
        self._failure: Exception | None = None  # to be raised once what ended has been handed over

    def __enter__(self) -> Self:
        """Start nothing yet: workers start when there is something to train."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Let go of everything at once; what is being trained is lost."""

    @property
    @abstractmethod
    def has_idle(self) -> bool:
        """Whether a job may be submitted now."""

    @abstractmethod
    def nodes(self) -> list[dict[str, object]]:
        """Return what the run record says of the machines that train; starts what that needs."""

    def largest_job(self, kind: Kind) -> int:
        """Return how many probes of one ``kind`` its engine trains together at most."""
        return self._engines[kind].largest_job

    @abstractmethod
    def submit(self, job: list[Probe]) -> None:
        """Start a job of one kind, while :attr:`has_idle`."""

    @abstractmethod
    def wait(self, timeout: float) -> list[tuple[Probe, Outcome | OutOfMemory]]:
        """Return the probes that ended within ``timeout`` seconds, at the first one.

        What memory does not suffice for, or what is lost again and again with its worker, has no
        outcome. Raises :class:`UserError` and, for a mistake in the code, RuntimeError.
        """

    def _end(self, job: Sequence[Probe], answer: Answer) -> None:
        """Take a worker's answer to ``job``."""
        if isinstance(answer, OutOfMemory):
            self._finished += [(probe, answer) for probe in job]
        elif isinstance(answer, list):
            self._finished += answer
        elif isinstance(answer, UserError):
            self._fail(answer)
        else:
            self._fail(RuntimeError(f"{job} failed:\n{answer}"))

    def _give_up(self, job: Sequence[Probe], how: str) -> None:
        """End the probes of ``job``, lost as often as is allowed and at last ``how``."""
        probe = job[0]
        error = OutOfMemory(
            f"a worker died {LOSSES_ALLOWED} times training {probe.architecture.spec.name} "
            f"{probe.architecture.name} on {probe.n} sequences ({how})"
        )
        self._end(job, error)

    def _fail(self, failure: Exception) -> None:
        """Raise ``failure`` once what has ended is handed over, unless there is one already."""
        self._failure = self._failure or failure

    def _hand_over(self) -> list[tuple[Probe, Outcome | OutOfMemory]]:
        """Return what has ended since the last call; raise a failure once nothing has."""
        if self._failure is not None and not self._finished:
            raise self._failure
        ended, self._finished = self._finished, []
        return ended


def start_worker() -> UserError | None:
    """Prepare this process for jobs; return why it cannot train, or None.

    Where memory is short the process ends: later there may be more, for another one.
    """
    try:
        import_torch()
    except UserError as error:
        return error
    except OutOfMemory:
        os._exit(NO_MEMORY_TO_START)
    import torch

    torch.set_num_threads(1)
    return None


def run_job(engine: Engine, job: Sequence[Probe]) -> Answer:
    """Train a job in this process; return what a worker sends back."""
    try:
        trained = engine.train(job)
    except (UserError, OutOfMemory) as error:
        return error
    except Exception:
        return traceback.format_exc()
    return [(probe, outcome) for probe, (outcome, _) in zip(job, trained, strict=True)]
