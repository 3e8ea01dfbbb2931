"""The threshold search: doubling until a size fails, then bisection, as published.

Its sizes are a pure generator that receives verdicts. No torch, no files: tested without training.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from threshold_search.log.layout import task_columns
from threshold_search.questions.question import Question, Row, State
from training.probe import BITS_VERSION, Outcome, Probe

FIRST_SIZE = 2


@dataclass(frozen=True)
class Bounds:
    """Where a search ended.

    ``threshold`` is the largest size memorized (0 if none was); ``first_failure`` is one more, the
    published convention, or None when the search hit its limit without a failure.
    """

    threshold: int
    first_failure: int | None


def search_sizes(limit: int) -> Generator[int, bool, Bounds]:
    """Yield sizes from 1 to ``limit``, each at most once; receive whether it was memorized.

    The published bisection may ask for the last doubled size again. A probe is a pure function,
    so its first verdict stands and it is not asked twice.
    """
    size, success = min(FIRST_SIZE, limit), 0
    while (yield size):
        success = size
        if size == limit:
            return Bounds(limit, None)
        size = min(2 * size, limit)
    failure = size
    low, high = max(success, 1), failure
    while low < high:
        middle = (low + high) // 2
        if middle == success or (yield middle):
            success, low = middle, middle + 1
        else:
            high = middle
    return Bounds(low - 1, low)


@dataclass(frozen=True, kw_only=True)
class Bisection(Question):
    """One ``repeat`` of a threshold search, up to ``max_size`` sequences if the user bounds it."""

    repeat: int
    max_size: int | None = None

    noun: ClassVar[str] = "searches"

    @property
    def part(self) -> str:
        """Its repeat."""
        return f"#{self.repeat}"

    @property
    def limit(self) -> int:
        """The largest size to try, in sequences: all that the task has, or ``max_size``."""
        return self.largest if self.max_size is None else min(self.max_size, self.largest)

    def start(self) -> BisectionState:
        """Return the search before its first probe."""
        return BisectionState(self)


class BisectionState(State):
    """A search in progress; every round is one probe.

    ``success`` and ``smallest_failure`` are what it has found so far, in sequences; ``bounds`` is
    where it ended, if it has.
    """

    question: Bisection

    def __init__(self, search: Bisection) -> None:
        super().__init__(search)
        self.bounds: Bounds | None = None
        self.success = 0
        self.smallest_failure: int | None = None
        self._sizes = search_sizes(search.limit)
        self._round = [search.probe(next(self._sizes), search.repeat)]

    def wanted(self) -> Sequence[Probe]:
        """Return the one probe that it waits for, or none."""
        return self._round

    def take(self, outcomes: Sequence[Outcome]) -> None:
        """Take the one outcome; go on to the next size or the end."""
        super().take(outcomes)
        [(probe, outcome)] = zip(self._round, outcomes, strict=True)
        if outcome.memorized:
            self.success = probe.n
        else:
            self.smallest_failure = probe.n
        try:
            size = self._sizes.send(outcome.memorized)
            self._round = [self.question.probe(size, self.question.repeat)]
        except StopIteration as end:
            self.bounds, self._round = end.value, []

    @property
    def remaining(self) -> float:
        """Probes still to come: known in the bisection, a guess before it."""
        if not self._round:
            return 0.0
        if self.smallest_failure is None:
            return len(self.taken) + 8.0  # as many halvings as doublings, and a few of both
        return math.log2(max(2, self.smallest_failure - self.success))

    @property
    def where(self) -> str:
        """Say what is known of the threshold, and the present size, in sequences."""
        known = f"at least {self.success}, " if self.success else ""
        if self.smallest_failure is not None:
            known = f"{self.success} to {self.smallest_failure - 1}, "
        return f"{known}now {self._round[0].n}"

    def row(self, label: str) -> Row | None:
        """Return the row of a finished search."""
        if self.bounds is None:
            return None
        search = self.question
        if search.max_size is not None:
            label += f" max_size={search.max_size}"
        return {
            "model": search.architecture.spec.name,
            "protocol": label,
            "bits": BITS_VERSION,
            "budget": search.budget,
            **task_columns(search.protocol),
            **search.architecture.columns(),
            "repeat": search.repeat,
            "seed": search.seed,
            "threshold": self.bounds.threshold,
            "first_failure": self.bounds.first_failure,
            "max_epoch_reached": any(o.stop_reason == "max_epochs" for _, o in self.taken),
            "probes": len(self.taken),
            "seconds": round(math.fsum(o.seconds for _, o in self.taken), 3),
        }
