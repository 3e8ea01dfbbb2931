"""One search: what it asks for, and where it stands."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from threshold_search.log.layout import task_columns
from threshold_search.questions.bisection import Bounds, next_size, search_sizes
from training.bits import BITS_VERSION
from training.probe import Outcome, Probe
from training.protocol import Protocol
from training.spec import Architecture


@dataclass(frozen=True)
class Search:
    """One repeat of one configuration; ``budget`` is what was asked for, in parameters.

    ``limit`` is the largest size to try; ``max_size`` is the user's bound behind it, if any.
    """

    architecture: Architecture
    protocol: Protocol
    budget: int
    repeat: int
    seed: int
    limit: int
    max_size: int | None = None
    attempt: int = 0

    noun: ClassVar[str] = "searches"

    @property
    def configuration(self) -> tuple[object, ...]:
        """What the repeats of a search have in common."""
        return self.architecture, self.budget

    def probe(self, n: int) -> Probe:
        """Return its probe of ``n`` sequences."""
        return Probe(self.architecture, self.protocol, self.seed, self.repeat, n, self.attempt)

    def start(self) -> SearchState:
        """Return the search before its first probe."""
        return SearchState(self)


@dataclass(frozen=True)
class Trial(Search):
    """One probe, of ``limit`` sequences: it finds no threshold and has no row of results."""

    noun: ClassVar[str] = "probes"

    @property
    def configuration(self) -> tuple[object, ...]:
        """What the repeats of a trial have in common."""
        return self.architecture, self.budget, self.limit

    def start(self) -> TrialState:
        """Return the trial before its probe."""
        return TrialState(self)


@dataclass(frozen=True)
class Rest:
    """What a search asks for after its current probe, as a value that a worker can be sent."""

    search: Search
    verdicts: tuple[bool, ...]  # so far, without the current probe's

    def __call__(self, outcomes: Sequence[Outcome]) -> Probe | None:
        """Return the probe after those with ``outcomes``, or None where the search ends."""
        verdicts = (*self.verdicts, *(outcome.memorized for outcome in outcomes))
        size = next_size(self.search.limit, verdicts)
        return None if size is None else self.search.probe(size)


class SearchState:
    """A search in progress: the verdicts so far and the probe it waits for.

    ``success`` and ``smallest_failure`` are what the search has found so far, in sequences.
    """

    def __init__(self, search: Search) -> None:
        self.search = search
        self.bounds: Bounds | None = None
        self.failure: str | None = None  # why the search cannot go on
        self.success = 0
        self.smallest_failure: int | None = None
        self._outcomes: list[Outcome] = []
        self._sizes = search_sizes(search.limit)
        self.probe = search.probe(next(self._sizes))

    def advance(self, outcome_of: Callable[[Probe], Outcome | None]) -> None:
        """Consume every outcome that is known, up to the next unknown one or the end."""
        while self.bounds is None and (outcome := outcome_of(self.probe)) is not None:
            self._outcomes.append(outcome)
            if outcome.memorized:
                self.success = self.probe.n
            else:
                self.smallest_failure = self.probe.n
            try:
                self.probe = self.search.probe(self._sizes.send(outcome.memorized))
            except StopIteration as end:
                self.bounds = end.value

    @property
    def bounds_so_far(self) -> str:
        """What is known of the threshold, in sequences, for the progress bar; "" for nothing."""
        if self.smallest_failure is None:
            return f"at least {self.success}, " if self.success else ""
        return f"{self.success} to {self.smallest_failure - 1}, "

    @property
    def rest(self) -> Rest | None:
        """What comes after the probe that the search waits for."""
        return Rest(self.search, self.verdicts)

    @property
    def verdicts(self) -> tuple[bool, ...]:
        """Whether its probes so far memorized, in their order."""
        return tuple(outcome.memorized for outcome in self._outcomes)

    @property
    def is_waiting(self) -> bool:
        """Whether the search waits for an outcome."""
        return self.bounds is None and self.failure is None

    @property
    def remaining(self) -> float:
        """Probes still to come: known in the bisection, a guess before it."""
        if not self.is_waiting:
            return 0.0
        if self.smallest_failure is None:
            return len(self._outcomes) + 8.0  # as many halvings as doublings, and a few of both
        return math.log2(max(2, self.smallest_failure - self.success))

    @property
    def fraction(self) -> float:
        """Share of the search's probes that are done, for the progress bar."""
        done = len(self._outcomes)
        return done / (done + self.remaining) if self.is_waiting else 1.0

    def row(self, label: str) -> dict[str, object]:
        """Return the result row of a finished search whose probes are logged under ``label``."""
        search, outcomes, bounds = self.search, self._outcomes, self.bounds
        assert bounds is not None
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
            "threshold": bounds.threshold,
            "first_failure": bounds.first_failure,
            "max_epoch_reached": any(o.stop_reason == "max_epochs" for o in outcomes),
            "probes": len(outcomes),
            "seconds": round(math.fsum(o.seconds for o in outcomes), 3),
        }


class TrialState(SearchState):
    """A trial in progress: it ends with its only outcome."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(trial)
        self.probe = trial.probe(trial.limit)
        self.outcome: Outcome | None = None

    def advance(self, outcome_of: Callable[[Probe], Outcome | None]) -> None:
        """Take the outcome if it is known."""
        self.outcome = outcome_of(self.probe)

    @property
    def rest(self) -> None:
        """Nothing: a trial is one probe."""

    @property
    def is_waiting(self) -> bool:
        """Whether the trial waits for its outcome."""
        return self.outcome is None and self.failure is None

    @property
    def remaining(self) -> float:
        """Probes still to come: one, or none."""
        return float(self.is_waiting)
