"""The probes that questions wait for, in the order in which they should train. Imports no torch."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from threshold_search.questions.question import State
from training.probe import Kind, Probe


class Requests:
    """Probes with the questions that wait for each; those that are ready can be taken as jobs.

    ``kinds`` are taken in order, so that results appear one by one. Within one, the question with
    the most probes to come goes first, which lets the repeats end at about the same time. Equal
    probes of different questions are one. What an event costs does not grow with the number of
    questions.
    """

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._askers: dict[Probe, list[State]] = {}
        self._missing: dict[State, int] = {}  # outcomes of its round that are not in yet
        self._in_flight: dict[Probe, int] = {}  # how many probes the job of each has
        # Probes to come (more is sooner), a number for the order of arrival, the probe.
        self._ready: dict[Kind, list[tuple[float, int, Probe]]] = {kind: [] for kind in kinds}
        self._alone: deque[Probe] = deque()  # a job of theirs was too large: each shows if it is
        self._serial = itertools.count()

    @property
    def has_any(self) -> bool:
        """Whether a question waits for a probe."""
        return bool(self._askers)

    @property
    def has_ready(self) -> bool:
        """Whether a probe can be taken."""
        return bool(self._alone) or any(self._ready.values())

    def add(self, state: State, probes: Sequence[Probe]) -> None:
        """Take the ``probes`` that are missing of the round that ``state`` waits for."""
        self._missing[state] = len(probes)
        for probe in probes:
            if probe not in self._askers and probe not in self._in_flight:
                entry = (-state.remaining, next(self._serial), probe)
                heapq.heappush(self._ready[probe.kind], entry)
            self._askers.setdefault(probe, []).append(state)

    def take(self, largest_job: Callable[[Kind], int]) -> list[Probe]:
        """Return the next job, of at most as many probes as ``largest_job`` says for their kind."""
        if self._alone:
            job = [self._alone.popleft()]
        else:
            kind, ready = next(item for item in self._ready.items() if item[1])
            size = min(largest_job(kind), len(ready))
            job = [heapq.heappop(ready)[-1] for _ in range(size)]
        self._in_flight.update(dict.fromkeys(job, len(job)))
        return job

    def answered(self, probe: Probe) -> list[State]:
        """Forget a probe whose outcome is in; return the questions whose round is complete."""
        del self._in_flight[probe]
        askers = self._askers.pop(probe, [])
        for state in askers:
            self._missing[state] -= 1
        return [state for state in askers if not self._missing[state]]

    def lacked_memory(self, probe: Probe) -> bool:
        """Return whether it is the probe that is too large; if its job was, it is ready again."""
        company = self._in_flight.pop(probe)
        if company > 1 and probe in self._askers:
            self._alone.append(probe)
        return company == 1

    def give_up(self, kind: Kind, size: int) -> list[State]:
        """Forget the questions that wait for a probe of ``kind`` with ``size`` sequences or more.

        Return them. What else they wait for is trained no more, unless another one waits for it.
        """
        lost = {
            state: None
            for probe, states in self._askers.items()
            if probe.kind == kind and probe.n >= size
            for state in states
        }
        waiting = {p: [s for s in states if s not in lost] for p, states in self._askers.items()}
        self._askers = {probe: states for probe, states in waiting.items() if states}
        self._ready[kind] = [entry for entry in self._ready[kind] if entry[-1] in self._askers]
        heapq.heapify(self._ready[kind])
        self._alone = deque(probe for probe in self._alone if probe in self._askers)
        return list(lost)
