"""What trains the driver's probes: the interface of executors, and what each does with a job.

A job is some probes of one architecture and protocol, which train together. Imports no torch.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol, Self

from command_line.interrupts import import_torch
from engines.native.build import source_hash
from training.errors import OutOfMemory, UserError
from training.probe_types import Outcome, Probe
from training.spec import Architecture

if TYPE_CHECKING:
    from engines.engine import Engine

ANOTHER_ENGINE = (
    "the compiled engine's sources have changed since the search began; start it again (every "
    "finished probe is kept)"
)
# Of a job: its outcomes, or why there are none. A text is a traceback, a mistake in the code.
Answer = list[Outcome] | OutOfMemory | UserError | str


class Executor(Protocol):
    """Trains jobs somewhere; a context manager that lets go of everything on exit.

    No probe is lost: every one that was submitted is in ``running`` or comes out of ``wait``.
    """

    def __enter__(self) -> Self:
        """Make ready."""

    def __exit__(self, *exception: object) -> None:
        """Let go at once; what is being trained is lost."""

    @property
    def has_idle(self) -> bool:
        """Whether a job could start now."""

    @property
    def running(self) -> Sequence[Probe]:
        """The probes that were submitted and have not come out of :meth:`wait`."""

    def largest_job(self, architecture: Architecture) -> int:
        """Return how many probes of ``architecture`` make a job at most."""

    def submit(self, job: list[Probe]) -> None:
        """Start a job, one only while :attr:`has_idle`."""

    def wait(self, timeout: float) -> list[tuple[Probe, Outcome | OutOfMemory]]:
        """Return the probes that ended within ``timeout`` seconds, at the first one.

        What memory does not suffice for, or kills its worker again and again, has no outcome.
        Raises :class:`UserError` and, for a mistake in the code, RuntimeError.
        """


def start_worker(sources: str) -> UserError | OutOfMemory | None:
    """Prepare this process for jobs; return why it must not train, or None.

    ``sources`` is the driver's :func:`~engines.native.build.source_hash`: a worker that starts late
    may find the project updated meanwhile, and its bits would differ.
    """
    try:
        import_torch()
    except (UserError, OutOfMemory) as error:
        return error
    import torch

    torch.set_num_threads(1)
    return None if source_hash() == sources else UserError(ANOTHER_ENGINE)


def run_job(engines: Mapping[Architecture, Engine], job: Sequence[Probe]) -> Answer:
    """Train a job in this process; return what an executor's worker has to send back."""
    try:
        return [outcome for outcome, _ in engines[job[0].architecture].train(job)]
    except (UserError, OutOfMemory) as error:
        return error
    except Exception:
        return traceback.format_exc()
