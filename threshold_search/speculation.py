"""Sizes that the next verdicts could ask for, most likely first: work for spare workers.

A bisection has two futures after every verdict, a doubling the next doubling and a bisection. What
a guess turns out to be for is decided by verdicts alone, so no result depends on it. No torch.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Container, Iterable, Iterator, Sequence

from threshold_search.questions.bisection import next_size
from threshold_search.questions.searches import SearchState
from threshold_search.requests import Kind, kind_of
from training.probe import Outcome, Probe

GROWTH = 4  # times what is asked for now: larger sizes only if another repeat has needed them
LEAST_CHANCE = 1e-3  # of a guess

Guess = tuple[float, Probe]  # how likely it is that the search will ask for the probe


class Speculation:
    """Guesses for searches that wait. What a search's verdicts change is looked at when needed.

    ``outcome_of`` returns what the log has of a probe, ``is_in_flight`` whether it trains now.
    """

    def __init__(
        self,
        states: Iterable[SearchState],
        outcome_of: Callable[[Probe], Outcome | None],
        is_in_flight: Callable[[Probe], bool],
    ) -> None:
        self._outcome_of, self._is_in_flight = outcome_of, is_in_flight
        self._repeats: dict[Kind, list[SearchState]] = {}
        for state in states:
            self._repeats.setdefault(kind_of(state.probe), []).append(state)
        self._changed: dict[SearchState, None] = {}
        self._guesses: dict[SearchState, Iterator[Guess]] = {}  # of the verdicts so far
        self._guessed_for: dict[Probe, SearchState] = {}
        # The next guess of each search. May have those of earlier verdicts: they are passed over.
        self._heap: list[tuple[float, int, SearchState, Iterator[Guess], Probe]] = []
        self._serial = itertools.count()

    def renew(self, state: SearchState) -> None:
        """Guess anew for a search: it has another verdict."""
        self._changed[state] = None

    def ended(self, probe: Probe) -> None:
        """Guess anew for the search that ``probe`` was a guess for: its verdict is known."""
        if (state := self._guessed_for.pop(probe, None)) is not None:
            self.renew(state)

    def take(self, going_on: Container[Probe] = ()) -> Probe | None:
        """Return the most likely probe that neither is known nor trains already, or None.

        A search that waits for one of ``going_on`` gets no guesses: a worker goes on with it.
        """
        for state in list(self._changed):
            self._guesses.pop(state, None)
            if state.is_waiting and state.probe in going_on:
                continue
            del self._changed[state]
            if state.is_waiting and state.rest is not None:
                self._guesses[state] = guesses(state, self._repeats_of(state), self._outcome_of)
                self._push(state)
        while self._heap:
            _, _, state, guesses_then, probe = heapq.heappop(self._heap)
            if self._guesses.get(state) is not guesses_then:
                continue
            self._push(state)
            if not self._is_in_flight(probe) and self._outcome_of(probe) is None:
                self._guessed_for[probe] = state
                return probe
        return None

    def _repeats_of(self, state: SearchState) -> list[SearchState]:
        return [other for other in self._repeats[kind_of(state.probe)] if other is not state]

    def _push(self, state: SearchState) -> None:
        following = self._guesses[state]
        if (guess := next(following, None)) is not None:
            chance, probe = guess
            entry = (-chance, next(self._serial), state, following, probe)
            heapq.heappush(self._heap, entry)


def guesses(
    state: SearchState,
    repeats: Sequence[SearchState],
    outcome_of: Callable[[Probe], Outcome | None],
) -> Iterator[Guess]:
    """Yield the probes that a search could ask for, the one that it does first, by their chance.

    A size is taken to be memorized as often as by other ``repeats`` of the configuration that have
    come to larger successes or smaller failures; of none that is every second time.
    """
    search = state.search
    tried = (size for other in repeats for size in (other.success, other.smallest_failure or 0))
    largest = max(GROWTH * state.probe.n, *tried, 0)
    serial = itertools.count()
    futures = [(-1.0, next(serial), state.verdicts)]
    while futures:
        chance, _, verdicts = heapq.heappop(futures)
        size = next_size(search.limit, verdicts)
        if size is None or size > largest:
            continue
        probe = search.probe(size)
        if (outcome := outcome_of(probe)) is not None:
            heapq.heappush(futures, (chance, next(serial), (*verdicts, outcome.memorized)))
            continue
        yield -chance, probe
        successes = sum(other.success >= size for other in repeats)
        failures = sum(0 < (other.smallest_failure or 0) <= size for other in repeats)
        memorized = (successes + 0.5) / (successes + failures + 1)
        for verdict, share in ((True, memorized), (False, 1 - memorized)):
            if -chance * share >= LEAST_CHANCE:
                heapq.heappush(futures, (chance * share, next(serial), (*verdicts, verdict)))
