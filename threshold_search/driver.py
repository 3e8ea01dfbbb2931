"""Keeps all searches in flight: hands ready probes to workers, logs outcomes, writes results."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from threshold_search.results_folder import ProbeLog, ResultsFolder
from threshold_search.search import Bounds, search_sizes
from threshold_search.workers import Workers
from training.bits import BITS_VERSION
from training.probe_types import Architecture, Outcome, Probe
from training.protocol import Protocol

PROGRESS_SECONDS = 0.5


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

    @property
    def configuration(self) -> tuple[Architecture, int]:
        """What the repeats of a search have in common."""
        return self.architecture, self.budget


class SearchState:
    """A search in progress: the verdicts so far and the size it waits for."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.bounds: Bounds | None = None
        self._sizes = search_sizes(search.limit)
        self._size = next(self._sizes)
        self._success, self._failure = 0, None
        self._outcomes: list[Outcome] = []

    @property
    def probe(self) -> Probe:
        """The probe whose outcome the search waits for."""
        s = self.search
        return Probe(s.architecture, s.protocol, s.seed, s.repeat, self._size)

    def advance(self, log: ProbeLog) -> None:
        """Consume every outcome the log has, up to the next unknown one or the end."""
        while self.bounds is None and (outcome := log.get(self.probe)) is not None:
            self._outcomes.append(outcome)
            if outcome.memorized:
                self._success = self._size
            else:
                self._failure = self._size
            try:
                self._size = self._sizes.send(outcome.memorized)
            except StopIteration as end:
                self.bounds = end.value

    @property
    def remaining(self) -> float:
        """Probes still to come: known in the bisection, a guess before it."""
        if self.bounds is not None:
            return 0.0
        if self._failure is None:
            return len(self._outcomes) + 8.0  # as many halvings as doublings, and a few of both
        return math.log2(max(2, self._failure - self._success))

    @property
    def fraction(self) -> float:
        """Share of the search's probes that are done, for the progress bar."""
        done = len(self._outcomes)
        return done / (done + self.remaining)

    def row(self, label: str) -> dict[str, object]:
        """Return the result row of a finished search whose probes are logged under ``label``."""
        search, outcomes = self.search, self._outcomes
        if search.max_size is not None:
            label += f" max_size={search.max_size}"
        return {
            "model": search.architecture.model,
            "protocol": label,
            "bits": BITS_VERSION,
            "budget": search.budget,
            **search.architecture.columns(),
            "repeat": search.repeat,
            "seed": search.seed,
            "threshold": self.bounds.threshold,
            "first_failure": self.bounds.first_failure,
            "max_epoch_reached": any(o.stop_reason == "max_epochs" for o in outcomes),
            "probes": len(outcomes),
            "seconds": round(math.fsum(o.seconds for o in outcomes), 3),
        }


def _kind(probe: Probe) -> tuple[Architecture, Protocol]:
    return probe.architecture, probe.protocol


def drive(
    searches: list[Search],
    folder: ResultsFolder,
    workers: Workers,
    on_progress: Callable[[list[SearchState]], None] = lambda states: None,
    job_size: Callable[[Architecture], int] = lambda _: 1,
    before_training: Callable[[], None] = lambda: None,
) -> list[SearchState]:
    """Run all ``searches`` to their end, reusing every probe the log has; return their states.

    Configurations are taken in order, so that results appear one by one. Within one, the search
    with the most probes to come goes first, which lets the repeats end at about the same time.
    Equal probes of different searches train once. A job takes up to ``job_size`` ready probes of
    one architecture and protocol. ``before_training`` is called once, before the first of them
    starts, or never if the log has them all.
    """
    states = [SearchState(search) for search in searches]
    rank: dict[tuple, int] = {}
    for search in searches:
        rank.setdefault(search.configuration, len(rank))

    def advance(state: SearchState) -> None:
        search = state.search
        log = folder.logs[search.architecture.model]
        state.advance(log)
        if state.bounds is not None:
            label = log.label(search.architecture, search.protocol)
            folder.results[log.model].put(state.row(label))

    for state in states:
        advance(state)
    on_progress(states)
    has_trained = False
    while unfinished := [state for state in states if state.bounds is None]:
        unfinished.sort(key=lambda state: (rank[state.search.configuration], -state.remaining))
        running = set(workers.running)
        ready = list(dict.fromkeys(s.probe for s in unfinished if s.probe not in running))
        while ready and workers.has_idle:
            first = ready[0]
            if not has_trained:
                before_training()
                has_trained = True
            alike = [p for p in ready if _kind(p) == _kind(first)]
            alike = alike[: job_size(first.architecture)]
            workers.submit(alike)
            ready = [p for p in ready if p not in alike]
        for probe, outcome in workers.wait(PROGRESS_SECONDS):
            folder.logs[probe.architecture.model].append(probe, outcome)
            for state in unfinished:
                if state.probe == probe:
                    advance(state)
        on_progress(states)
    return states
