"""The probes that searches wait for, in the order in which they should train. Imports no torch."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterator, Sequence

from threshold_search.questions.searches import SearchState
from training.probe import Probe
from training.protocol import Protocol
from training.spec import Architecture

Kind = tuple[Architecture, Protocol]
# Rank of the configuration, probes to come (less is sooner), place of the search, a number that
# tells two entries apart.
Entry = tuple[int, float, int, int, Probe]


def kind_of(probe: Probe) -> Kind:
    """Return what the probes of a job have in common."""
    return probe.architecture, probe.protocol


class Requests:
    """Probes with the searches that wait for each; those that are ready can be taken as jobs.

    Configurations are taken in order, so that results appear one by one. Within one, the search
    with the most probes to come goes first, which lets the repeats end at about the same time.
    Equal probes of different searches are one.
    """

    def __init__(self, states: Sequence[SearchState]) -> None:
        rank: dict[tuple, int] = {}
        self._order = {
            id(state): (rank.setdefault(state.search.configuration, len(rank)), index)
            for index, state in enumerate(states)
        }
        self._askers: dict[Probe, list[SearchState]] = {}
        self._ready: set[Probe] = set()
        # May have entries of probes that are ready no more: they are passed over.
        self._heap: list[Entry] = []
        self._serial = itertools.count()

    @property
    def has_any(self) -> bool:
        """Whether a search waits for a probe."""
        return bool(self._askers)

    @property
    def has_ready(self) -> bool:
        """Whether a probe can be taken."""
        return bool(self._ready)

    def is_waited_for(self, probe: Probe) -> bool:
        """Whether a search waits for this probe."""
        return probe in self._askers

    def add(self, state: SearchState, is_ready: bool) -> None:
        """Take the probe that ``state`` waits for, which ``is_ready`` unless it trains already."""
        self._askers.setdefault(state.probe, []).append(state)
        if is_ready:
            self._ready.add(state.probe)
            self._push(state)

    def put_back(self, probe: Probe) -> None:
        """Make a probe ready again that was taken."""
        self._ready.add(probe)
        for state in self._askers[probe]:
            self._push(state)

    def remove(self, probe: Probe) -> list[SearchState]:
        """Forget a probe; return the searches that waited for it."""
        self._ready.discard(probe)
        return self._askers.pop(probe, [])

    def too_large(self, kind: Kind, size: int) -> list[Probe]:
        """Return the probes of ``kind``, waited for, of ``size`` sequences or more."""
        return [p for p in self._askers if kind_of(p) == kind and p.n >= size]

    def take(self, largest: Callable[[Probe], int]) -> tuple[list[Probe], SearchState]:
        """Return the next job and a search that waits for its first probe.

        ``largest`` says how many probes a probe may be in a job of: those of the first one's kind
        follow in their order, if they allow as many.
        """
        entries = self._entries()
        first = next(entries)[-1]
        size = largest(first)
        job, others = [first], []
        while len(job) < size and (entry := next(entries, None)) is not None:
            probe = entry[-1]
            if kind_of(probe) == kind_of(first) and largest(probe) == size:
                job.append(probe)
            else:
                others.append(entry)
        for entry in others:
            self._ready.add(entry[-1])
            heapq.heappush(self._heap, entry)
        return job, self._askers[first][0]

    def _entries(self) -> Iterator[Entry]:
        """Yield the entries of ready probes in order; these are ready no more."""
        while self._heap:
            entry = heapq.heappop(self._heap)
            if entry[-1] in self._ready:
                self._ready.remove(entry[-1])
                yield entry

    def _push(self, state: SearchState) -> None:
        rank, index = self._order[id(state)]
        entry = (rank, -state.remaining, index, next(self._serial), state.probe)
        heapq.heappush(self._heap, entry)
