"""Keeps all searches in flight: hands ready probes to workers, logs outcomes, writes results."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from threshold_search.executor import Executor
from threshold_search.results_folder import ResultsFolder
from threshold_search.searches import Search, SearchState
from training.errors import OutOfMemory
from training.probe_types import Probe
from training.protocol import Protocol
from training.spec import Architecture

PROGRESS_SECONDS = 0.5


Kind = tuple[Architecture, Protocol]


def _kind(probe: Probe) -> Kind:
    return probe.architecture, probe.protocol


def drive(
    searches: Sequence[Search],
    folder: ResultsFolder,
    workers: Executor,
    on_progress: Callable[[list[SearchState]], None] = lambda states: None,
    before_training: Callable[[], None] = lambda: None,
) -> list[SearchState]:
    """Run all ``searches`` to their end, reusing every probe the log has; return their states.

    Configurations are taken in order, so that results appear one by one. Within one, the search
    with the most probes to come goes first, which lets the repeats end at about the same time.
    Equal probes of different searches train once. A job takes as many ready probes of one
    architecture and protocol as its engine trains together. ``before_training`` is called once,
    before the first of them starts, or never if the log has them all.

    Where memory is too short for a probe, its search and those of the same configuration that ask
    for as many sequences or more end as failed (``SearchState.failure``); the others go on.
    """
    states = [search.start() for search in searches]
    rank: dict[tuple, int] = {}
    for search in searches:
        rank.setdefault(search.configuration, len(rank))

    def advance(state: SearchState) -> None:
        name = state.search.architecture.spec.name
        log = folder.logs[name]
        state.advance(log.get)
        if state.bounds is not None:
            folder.results[name].put(state.row(folder.label(state.probe)))

    for state in states:
        advance(state)
    on_progress(states)
    has_trained = False
    too_large: dict[Kind, tuple[int, str]] = {}  # smallest size that failed, why
    company: dict[Probe, int] = {}  # how many probes the job had that a probe is, or was, in
    alone: set[Probe] = set()  # a job of theirs was too large: each has to show if it is itself
    while unfinished := [state for state in states if state.is_waiting]:
        unfinished.sort(key=lambda state: (rank[state.search.configuration], -state.remaining))
        running = set(workers.running)
        ready = list(dict.fromkeys(s.probe for s in unfinished if s.probe not in running))
        while ready and workers.has_idle:
            first = ready[0]
            if not has_trained:
                before_training()
                has_trained = True
            alike = [first]
            if first not in alone:
                alike = [p for p in ready if _kind(p) == _kind(first) and p not in alone]
                alike = alike[: workers.largest_job(first.architecture)]
            company.update(dict.fromkeys(alike, len(alike)))
            rest = next(s.rest for s in unfinished if s.probe == first)
            workers.submit(alike, rest if len(alike) == 1 else None)
            ready = [p for p in ready if p not in alike]
        for probe, outcome in workers.wait(PROGRESS_SECONDS):
            if isinstance(outcome, OutOfMemory) and company[probe] > 1:
                alone.add(probe)
                continue
            if isinstance(outcome, OutOfMemory):
                smallest = too_large.get(_kind(probe), (probe.n + 1, ""))
                too_large[_kind(probe)] = min(smallest, (probe.n, str(outcome)))
                continue
            log = folder.logs[probe.architecture.spec.name]
            if log.get(probe) is not None:  # a group of probes went on into what another had
                continue
            log.append(probe, outcome)
            for state in unfinished:
                if state.probe == probe:
                    advance(state)
        for state in unfinished:
            size, reason = too_large.get(_kind(state.probe), (math.inf, ""))
            if state.is_waiting and state.probe.n >= size:
                state.failure = reason
        on_progress(states)
    return states
