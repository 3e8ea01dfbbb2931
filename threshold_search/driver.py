"""Keeps all searches in flight: hands ready probes to workers, logs outcomes, writes results."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence

from threshold_search.executor import Executor
from threshold_search.requests import Kind, Requests, kind_of
from threshold_search.results_folder import ResultsFolder
from threshold_search.searches import Search, SearchState
from training.errors import OutOfMemory, UserError
from training.probe_types import Outcome, Probe

PROGRESS_SECONDS = 0.5
RESULTS_SECONDS = 1.0  # between two writings of the results, which are written whole


def drive(
    searches: Sequence[Search],
    folder: ResultsFolder,
    workers: Executor,
    on_progress: Callable[[list[SearchState]], None] = lambda states: None,
    before_training: Callable[[], None] = lambda: None,
) -> list[SearchState]:
    """Run all ``searches`` to their end, reusing every probe the log has; return their states.

    The order is that of :class:`~threshold_search.requests.Requests`. A job takes as many ready
    probes of one architecture and protocol as its engine trains together. ``before_training`` is
    called once, before the first of them starts, or never if the log has them all.

    Where memory is too short for a probe, its search and those of the same configuration that ask
    for as many sequences or more end as failed (``SearchState.failure``); the others go on.
    """
    driver = _Driver(searches, folder, workers, before_training)
    try:
        driver.run(on_progress)
    except BaseException:
        with contextlib.suppress(UserError):
            folder.write_results()
        raise
    folder.write_results()
    return driver.states


class _Driver:
    """What is in flight, and for which searches.

    What an event costs the driver does not grow with the number of searches.
    """

    def __init__(
        self,
        searches: Sequence[Search],
        folder: ResultsFolder,
        workers: Executor,
        before_training: Callable[[], None],
    ) -> None:
        self.states = [search.start() for search in searches]
        self._folder, self._workers = folder, workers
        self._before_training = before_training
        self._has_trained = False
        self._requests = Requests(self.states)
        self._in_flight: dict[Probe, int] = {}  # how many probes the job of each has
        self._alone: set[Probe] = set()  # a job of theirs was too large: each has to show if it is
        self._too_large: dict[Kind, tuple[int, str]] = {}  # smallest size that failed, why

    def run(self, on_progress: Callable[[list[SearchState]], None]) -> None:
        """Run every search to its end."""
        for state in self.states:
            self._advance(state)
        on_progress(self.states)
        written = -math.inf
        while self._requests.has_any:
            self._submit()
            if time.monotonic() - written >= RESULTS_SECONDS:
                self._folder.write_results()
                written = time.monotonic()
            self._take(self._workers.wait(PROGRESS_SECONDS))
            on_progress(self.states)

    def _submit(self) -> None:
        while self._requests.has_ready and self._workers.has_idle:
            if not self._has_trained:
                self._before_training()
                self._has_trained = True
            job, asker = self._requests.take(self._largest_job)
            self._in_flight.update(dict.fromkeys(job, len(job)))
            self._workers.submit(job, asker.rest if len(job) == 1 else None)

    def _largest_job(self, probe: Probe) -> int:
        return 1 if probe in self._alone else self._workers.largest_job(probe.architecture)

    def _take(self, ended: Sequence[tuple[Probe, Outcome | OutOfMemory]]) -> None:
        """Log what has ended; let the searches that waited for it go on."""
        finished: dict[str, list[tuple[Probe, Outcome]]] = {}
        answered = []
        for probe, outcome in ended:
            name = probe.architecture.spec.name
            company = self._in_flight.pop(probe, 1)  # not there: it came after another one
            if not isinstance(outcome, OutOfMemory):
                if self._folder.logs[name].get(probe) is None:  # else two jobs came to it
                    finished.setdefault(name, []).append((probe, outcome))
                answered.append(probe)
            elif company > 1:
                self._alone.add(probe)
                self._requests.put_back(probe)
            else:
                smallest = self._too_large.get(kind_of(probe), (probe.n + 1, ""))
                size, reason = min(smallest, (probe.n, str(outcome)))
                self._too_large[kind_of(probe)] = size, reason
                answered += self._requests.too_large(kind_of(probe), size)
        for name, rows in finished.items():
            self._folder.logs[name].append(rows)
        for probe in answered:
            for state in self._requests.remove(probe):
                self._advance(state)

    def _advance(self, state: SearchState) -> None:
        """Let a search take what the log has; ask for its next probe or put down its result."""
        state.advance(self._folder.logs[state.search.architecture.spec.name].get)
        if state.is_waiting:
            size, reason = self._too_large.get(kind_of(state.probe), (math.inf, ""))
            if state.probe.n >= size:
                state.failure = reason
            else:
                self._requests.add(state, is_ready=state.probe not in self._in_flight)
        elif state.bounds is not None:
            row = state.row(self._folder.label(state.probe))
            self._folder.results[state.search.architecture.spec.name].put(row)
