"""What trains the driver's probes: the interface of executors, and what each does with a job.

A job is some probes of one architecture and protocol, which train together. Imports no torch.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from command_line.interrupts import import_torch
from training.errors import OutOfMemory, UserError
from training.probe import Outcome, Probe
from training.spec import Architecture

if TYPE_CHECKING:
    from engines.engine import Engine

# Of a job: its outcomes, or why there are none. A text is a traceback, a mistake in the code.
Answer = list[tuple[Probe, Outcome]] | OutOfMemory | UserError | str
# From the outcomes of a job so far to what its search asks for next. Can be pickled.
NextProbe = Callable[[Sequence[Outcome]], Probe | None]
GROUP_SECONDS = 5.0  # of finished work that a worker may keep to itself
QUICK_SECONDS = 1.0  # a probe that takes longer is worth a job of its own
DEADLINE_SECONDS = 86_400.0
NO_MEMORY_TO_START = 79  # exit status of a worker


class Executor(Protocol):
    """Trains jobs somewhere; a context manager that closes itself on exit.

    No probe is lost: every one that was submitted comes out of ``wait``, or was cancelled. A job
    whose worker dies, or takes longer than the executor's deadline, starts again.
    """

    def __enter__(self) -> Self:
        """Make ready."""

    def __exit__(self, *exception: object) -> None:
        """Close."""

    def close(self) -> None:
        """Let go of everything at once; what is being trained is lost."""

    @property
    def has_idle(self) -> bool:
        """Whether a job may be submitted now."""

    @property
    def has_spare(self) -> bool:
        """Whether it would start at once, instead of standing behind another one."""

    def nodes(self) -> list[dict[str, object]]:
        """Return what the run record says of the machines that train; starts what that needs."""

    def largest_job(self, architecture: Architecture) -> int:
        """Return how many probes of ``architecture`` make a job at most."""

    def submit(self, job: list[Probe], then: NextProbe | None = None) -> None:
        """Start a job, one only while :attr:`has_idle`.

        An executor to which a short job is expensive may go on with what comes ``then``, after the
        job's only probe: for :data:`GROUP_SECONDS` at most, so that no more is lost with a worker.
        """

    def cancel(self, probe: Probe) -> None:
        """End the job that ``probe`` is in, if it has not ended: its probes come out no more."""

    def wait(self, timeout: float) -> list[tuple[Probe, Outcome | OutOfMemory]]:
        """Return the probes that ended within ``timeout`` seconds, at the first one.

        Among them are those that came ``then``. What memory does not suffice for, or what is lost
        again and again with its worker, has no outcome. Raises :class:`UserError` and, for a
        mistake in the code, RuntimeError.
        """


@runtime_checkable
class Queue(Protocol):
    """What an executor offers besides if its jobs may stand in a queue, or go on by themselves."""

    def waiting(self, seconds: float = 0.0) -> set[Probe]:
        """Return the probes that no worker has begun in ``seconds`` since they were submitted."""

    def going_on(self) -> set[Probe]:
        """Return the probes whose jobs go on with what comes then, or still may."""


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


def run_job(engine: Engine, job: Sequence[Probe], then: NextProbe | None = None) -> Answer:
    """Train a job in this process, and what comes ``then``; return what a worker sends back."""
    begin = time.monotonic()
    done: list[tuple[Probe, Outcome]] = []
    following: Sequence[Probe] = job
    try:
        while following:
            start = time.monotonic()
            trained = engine.train(following)
            done += [(p, o) for p, (o, _) in zip(following, trained, strict=True)]
            now = time.monotonic()
            is_over = now - start > QUICK_SECONDS or now - begin > GROUP_SECONDS
            probe = then([outcome for _, outcome in done]) if then and not is_over else None
            following = [probe] if probe else []
    except Exception as error:
        if done:  # what came then has failed: as a job of its own it says why
            return done
        return error if isinstance(error, UserError | OutOfMemory) else traceback.format_exc()
    return done
