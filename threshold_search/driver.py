"""Keeps all searches in flight: hands ready probes to workers, logs outcomes, writes results."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence

from threshold_search.executors.executor import Executor, Queue
from threshold_search.log.results_folder import ResultsFolder
from threshold_search.questions.searches import Search, SearchState
from threshold_search.requests import Kind, Requests, kind_of
from threshold_search.speculation import Speculation
from training.errors import OutOfMemory, UserError
from training.probe import Outcome, Probe

PROGRESS_SECONDS = 0.5
QUEUED_SECONDS = 10.0  # in a queue; a worker is there sooner, unless there is no room for it
RESULTS_SECONDS = 1.0  # between two writings of the results, which are written whole


def drive(
    searches: Sequence[Search],
    folder: ResultsFolder,
    workers: Executor,
    on_progress: Callable[[list[SearchState]], None] = lambda states: None,
    before_training: Callable[[], None] = lambda: None,
    speculate: bool = False,
) -> list[SearchState]:
    """Run all ``searches`` to their end, reusing every probe the log has; return their states.

    The order is that of :class:`~threshold_search.requests.Requests`. A job takes as many ready
    probes of one architecture and protocol as its engine trains together. ``before_training`` is
    called once, before the first of them starts, or never if the log has them all.

    Where memory is too short for a probe, its search and those of the same configuration that ask
    for as many sequences or more end as failed (``SearchState.failure``); the others go on.

    With ``speculate``, workers for which there is no such probe train what the next verdicts could
    ask for (:mod:`~threshold_search.speculation`): the log gets more rows, the results the same.
    """
    driver = _Driver(searches, folder, workers, before_training, speculate)
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
        speculate: bool,
    ) -> None:
        self.states = [search.start() for search in searches]
        self._folder, self._workers = folder, workers
        self._queue = workers if isinstance(workers, Queue) else None
        self._before_training = before_training
        self._has_trained = False
        self._requests = Requests(self.states)
        self._in_flight: dict[Probe, int] = {}  # how many probes the job of each has
        self._alone: set[Probe] = set()  # a job of theirs was too large: each has to show if it is
        self._too_large: dict[Kind, tuple[int, str]] = {}  # smallest size that failed, why
        self._guesses: dict[Probe, None] = {}  # what is in flight without being waited for
        self._speculation = (
            Speculation(self.states, self._outcome_of, self._in_flight.__contains__)
            if speculate
            else None
        )

    def run(self, on_progress: Callable[[list[SearchState]], None]) -> None:
        """Run every search to its end."""
        for state in self.states:
            self._advance(state)
        on_progress(self.states)
        written = -math.inf
        while self._requests.has_any:
            self._submit()
            self._speculate()
            if time.monotonic() - written >= RESULTS_SECONDS:
                self._folder.write_results()
                written = time.monotonic()
            self._take(self._workers.wait(min(PROGRESS_SECONDS, self._folder.sync())))
            on_progress(self.states)

    def _submit(self) -> None:
        # No guess takes a worker that a search could use, but workers may have become fewer.
        while self._guesses and self._requests.has_ready and not self._workers.has_spare:
            self._drop_guess()
        # One at a time: the place that becomes free may be all that was missing.
        stuck = self._queue.waiting(QUEUED_SECONDS) if self._guesses and self._queue else set()
        if stuck - self._guesses.keys():
            self._drop_guess()
        while self._requests.has_ready:
            if not self._has_trained:  # before has_idle, which may start a cluster
                self._before_training()
                self._has_trained = True
            if not self._workers.has_idle:
                return
            job, asker = self._requests.take(self._largest_job)
            self._in_flight.update(dict.fromkeys(job, len(job)))
            self._workers.submit(job, asker.rest if len(job) == 1 else None)

    def _drop_guess(self) -> None:
        probe, _ = self._guesses.popitem()  # the least likely of those that came last
        self._workers.cancel(probe)
        del self._in_flight[probe]

    def _speculate(self) -> None:
        if self._speculation is None or self._requests.has_ready:
            return
        going_on: set[Probe] = set()
        if self._queue is not None:
            # Until every job that a search waits for has begun, and while guesses find no room.
            if self._queue.waiting() - self._guesses.keys() or self._queue.waiting(QUEUED_SECONDS):
                return
            going_on = self._queue.going_on()
        while self._workers.has_spare:
            if (probe := self._speculation.take(going_on)) is None:
                return
            self._in_flight[probe] = 1
            self._guesses[probe] = None
            self._workers.submit([probe])

    def _largest_job(self, probe: Probe) -> int:
        return 1 if probe in self._alone else self._workers.largest_job(probe.architecture)

    def _take(self, ended: Sequence[tuple[Probe, Outcome | OutOfMemory]]) -> None:
        """Log what has ended; let the searches that waited for it go on."""
        finished: dict[str, list[tuple[Probe, Outcome]]] = {}
        answered = []
        for probe, outcome in ended:
            name = probe.architecture.spec.name
            company = self._in_flight.pop(probe, 1)  # not there: it came after another one
            is_guess = probe in self._guesses
            self._guesses.pop(probe, None)
            if not isinstance(outcome, OutOfMemory):
                if self._outcome_of(probe) is None:  # else two jobs came to it
                    finished.setdefault(name, []).append((probe, outcome))
                answered.append(probe)
            elif is_guess or not self._requests.is_waited_for(probe):
                self._stop_guessing()  # nobody needs it, and guesses need memory that is short
            elif company > 1:
                self._alone.add(probe)
                self._requests.put_back(probe)
            elif self._stop_guessing():  # did it lack what the guesses had?
                self._requests.put_back(probe)
            else:
                smallest = self._too_large.get(kind_of(probe), (probe.n + 1, ""))
                size, reason = min(smallest, (probe.n, str(outcome)))
                self._too_large[kind_of(probe)] = size, reason
                answered += self._requests.too_large(kind_of(probe), size)
        for name, rows in finished.items():
            self._folder.logs[name].append(rows)
        for probe in answered:
            if self._speculation is not None:
                self._speculation.ended(probe)
            for state in self._requests.remove(probe):
                self._advance(state)

    def _stop_guessing(self) -> bool:
        """End every guess and make no more; return whether there was one in flight."""
        self._speculation = None
        guesses, self._guesses = list(self._guesses), {}
        for probe in guesses:
            self._workers.cancel(probe)
            del self._in_flight[probe]
        return bool(guesses)

    def _advance(self, state: SearchState) -> None:
        """Let a search take what the log has; ask for its next probe or put down its result."""
        state.advance(self._outcome_of)
        if state.is_waiting:
            size, reason = self._too_large.get(kind_of(state.probe), (math.inf, ""))
            if state.probe.n >= size:
                state.failure = reason
            else:
                self._guesses.pop(state.probe, None)
                self._requests.add(state, is_ready=state.probe not in self._in_flight)
        elif state.bounds is not None:
            row = state.row(self._folder.label(state.probe))
            self._folder.results[state.search.architecture.spec.name].put(row)
        if self._speculation is not None:
            self._speculation.renew(state)

    def _outcome_of(self, probe: Probe) -> Outcome | None:
        return self._folder.logs[probe.architecture.spec.name].get(probe)
