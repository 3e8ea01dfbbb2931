"""What executors keep of their jobs: what has ended, what was lost how often. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from threshold_search.executors.executor import Answer
from training.errors import OutOfMemory, UserError
from training.probe import Outcome, Probe

LOSSES_ALLOWED = 3  # of a job: it may be what killed its workers


class Jobs:
    """Between an executor's workers and what it returns from ``wait``."""

    def __init__(self) -> None:
        self._ended: list[tuple[Probe, Outcome | OutOfMemory]] = []
        self._failure: Exception | None = None  # to be raised once what ended has been handed over
        self._losses: Counter[Probe] = Counter()  # by the first probe of a job

    @property
    def has_failed(self) -> bool:
        """Whether :meth:`hand_over` will raise, now or next time."""
        return self._failure is not None

    def take(self, job: Sequence[Probe], answer: Answer) -> None:
        """Take a worker's answer to ``job``."""
        del self._losses[job[0]]  # a Counter takes that of what it does not have
        if isinstance(answer, OutOfMemory):
            self._ended += [(probe, answer) for probe in job]
        elif isinstance(answer, list):
            self._ended += answer
        elif isinstance(answer, UserError):
            self.fail(answer)
        else:
            self.fail(RuntimeError(f"{job} failed:\n{answer}"))

    def fail(self, failure: Exception) -> None:
        """Raise ``failure`` once what has ended is handed over, unless there is one already."""
        self._failure = self._failure or failure

    def is_lost_for_good(self, job: Sequence[Probe], how: str) -> bool:
        """Count a loss of ``job``; give it up after as many as are allowed.

        ``how`` it was lost is for the message. Otherwise the executor has to submit it again.
        """
        self._losses[job[0]] += 1
        if self._losses[job[0]] < LOSSES_ALLOWED:
            return False
        self.give_up(job, how)
        return True

    def give_up(self, job: Sequence[Probe], how: str) -> None:
        """End the probes of ``job``, lost as often as is allowed, without outcomes."""
        probe = job[0]
        error = OutOfMemory(
            f"a worker died {LOSSES_ALLOWED} times training {probe.architecture.spec.name} "
            f"{probe.architecture.name} on {probe.n} sequences ({how})"
        )
        self.take(job, error)

    def hand_over(self) -> list[tuple[Probe, Outcome | OutOfMemory]]:
        """Return what has ended since the last call; raise a failure once nothing has."""
        if self._failure is not None and not self._ended:
            raise self._failure
        ended, self._ended = self._ended, []
        return ended
