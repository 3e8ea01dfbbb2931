"""What executors keep of their jobs: what has ended, what was lost how often. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from threshold_search.executor import Answer
from training.errors import OutOfMemory, UserError
from training.probe_types import Outcome, Probe

LOSSES_ALLOWED = 3


class Jobs:
    """Between an executor's workers and what it returns from ``wait``."""

    def __init__(self) -> None:
        self._ended: list[tuple[Probe, Outcome | OutOfMemory]] = []
        self._failure: Exception | None = None  # to be raised once what ended has been handed over
        self._losses: Counter[Probe] = Counter()  # by the first probe of a job

    @property
    def has_ended(self) -> bool:
        """Whether :meth:`hand_over` will return or raise something."""
        return bool(self._ended) or self._failure is not None

    def take(self, job: Sequence[Probe], answer: Answer) -> None:
        """Take a worker's answer to ``job``."""
        del self._losses[job[0]]  # a Counter takes that of what it does not have
        if isinstance(answer, OutOfMemory):
            self._ended += [(probe, answer) for probe in job]
        elif isinstance(answer, list):
            self._ended += answer
        elif isinstance(answer, UserError):
            self._failure = self._failure or answer
        else:
            self._failure = self._failure or RuntimeError(f"{job} failed:\n{answer}")

    def is_lost_for_good(
        self, job: Sequence[Probe], how: str, allowed: int = LOSSES_ALLOWED
    ) -> bool:
        """Count a loss of ``job``; when it is one of ``allowed`` its probes end, without outcomes.

        ``how`` it was lost is for the message. Otherwise the executor has to submit it again.
        """
        probe = job[0]
        self._losses[probe] += 1
        if self._losses[probe] < allowed:
            return False
        del self._losses[probe]  # if it is asked for again, it was a guess, or in company
        error = OutOfMemory(
            f"a worker died {allowed} times training {probe.architecture.spec.name} "
            f"{probe.architecture.name} on {probe.n} sequences ({how})"
        )
        self._ended += [(probe, error) for probe in job]
        return True

    def hand_over(self) -> list[tuple[Probe, Outcome | OutOfMemory]]:
        """Return what has ended since the last call; raise a failure once nothing has."""
        if self._failure is not None and not self._ended:
            raise self._failure
        ended, self._ended = self._ended, []
        return ended
