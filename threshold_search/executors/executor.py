"""What trains the driver's probes: the interface of executors, and what each does with a job.

A job is some probes of one architecture and protocol, which train together. Imports no torch.
"""

from __future__ import annotations

import os
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, Self

from command_line.interrupts import import_torch
from training.errors import OutOfMemory, UserError
from training.probe import Kind, Outcome, Probe

if TYPE_CHECKING:
    from engines.engine import Engine

# Of a job: its outcomes, or why there are none. A text is a traceback, a mistake in the code.
Answer = list[tuple[Probe, Outcome]] | OutOfMemory | UserError | str
DEADLINE_SECONDS = 86_400.0
NO_MEMORY_TO_START = 79  # exit status of a worker


class Executor(Protocol):
    """Trains jobs somewhere; a context manager that closes itself on exit.

    No probe is lost: every one that was submitted comes out of ``wait``, once. A job whose worker
    dies, or takes longer than the executor's deadline, starts again.
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

    def nodes(self) -> list[dict[str, object]]:
        """Return what the run record says of the machines that train; starts what that needs."""

    def largest_job(self, kind: Kind) -> int:
        """Return how many probes of one ``kind`` make a job at most."""

    def submit(self, job: list[Probe]) -> None:
        """Start a job of one kind, while :attr:`has_idle`."""

    def wait(self, timeout: float) -> list[tuple[Probe, Outcome | OutOfMemory]]:
        """Return the probes that ended within ``timeout`` seconds, at the first one.

        What memory does not suffice for, or what is lost again and again with its worker, has no
        outcome. Raises :class:`UserError` and, for a mistake in the code, RuntimeError.
        """


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
