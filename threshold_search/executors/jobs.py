"""What executors keep of their jobs: what has ended, what was lost how often. No torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from threshold_search.executors.executor import Answer
from training.errors import OutOfMemory, UserError
from training.probe import Outcome, Probe

LOSSES_ALLOWED = 3  # of a job that trained: it may be what killed its workers
OTHER_LOSSES_ALLOWED = 10  # with its node, or before it began: seldom the job's fault


class Jobs:
    """Between an executor's workers and what it returns from ``wait``."""

    def __init__(self) -> None:
        self._ended: list[tuple[Probe, Outcome | OutOfMemory]] = []
        self._failure: Exception | None = None  # to be raised once what ended has been handed over
        # By the first probe of a job, and whether they may be its own fault.
        self._losses: Counter[tuple[Probe, bool]] = Counter()

    @property
    def has_ended(self) -> bool:
        """Whether :meth:`hand_over` will return or raise something."""
        return bool(self._ended) or self._failure is not None

    def take(self, job: Sequence[Probe], answer: Answer) -> None:
        """Take a worker's answer to ``job``."""
        self.forget(job)
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

    def forget(self, job: Sequence[Probe]) -> None:
        """Forget the losses of a job: it has ended, or nobody wants it any more."""
        for is_own in (True, False):
            del self._losses[job[0], is_own]  # a Counter takes that of what it does not have

    def is_lost_for_good(self, job: Sequence[Probe], how: str, is_own: bool = True) -> bool:
        """Count a loss of ``job``; after as many as are allowed its probes end without outcomes.

        A loss ``is_own`` if the job was training, on a node that is still there. ``how`` it was
        lost is for the message. Otherwise the executor has to submit it again.
        """
        probe = job[0]
        self._losses[probe, is_own] += 1
        own, other = self._losses[probe, True], self._losses[probe, False]
        if own < LOSSES_ALLOWED and other < OTHER_LOSSES_ALLOWED:
            return False
        self.forget(job)  # if it is asked for again, it was a guess, or in company
        others = f", {other} of them with its node or before it began" if other else ""
        error = OutOfMemory(
            f"a worker died {own + other} times training {probe.architecture.spec.name} "
            f"{probe.architecture.name} on {probe.n} sequences{others} ({how})"
        )
        self._ended += [(probe, error) for probe in job]
        return True

    def hand_over(self) -> list[tuple[Probe, Outcome | OutOfMemory]]:
        """Return what has ended since the last call; raise a failure once nothing has."""
        if self._failure is not None and not self._ended:
            raise self._failure
        ended, self._ended = self._ended, []
        return ended
