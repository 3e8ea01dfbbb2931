"""Keeps all questions in flight: hands ready probes to workers, logs outcomes, writes results."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence

from threshold_search.executors.executor import Executor
from threshold_search.log.results_folder import ResultsFolder
from threshold_search.questions.question import Question, State
from threshold_search.requests import Requests
from training.errors import OutOfMemory, UserError
from training.probe import Kind, Outcome, Probe

PROGRESS_SECONDS = 0.5
RESULTS_SECONDS = 1.0  # between two writings of the results, which are written whole


def drive(
    questions: Sequence[Question],
    folder: ResultsFolder,
    executor: Executor,
    on_progress: Callable[[list[State]], None] = lambda states: None,
    before_training: Callable[[], None] = lambda: None,
) -> list[State]:
    """Bring all ``questions`` to their end, reusing every probe the log has; return their states.

    The order is that of :class:`~threshold_search.requests.Requests`. A job takes as many ready
    probes of one architecture and protocol as its engine trains together. ``before_training`` is
    called once, before the first of them starts, or never if the log has them all.

    Where memory is too short for a probe, its question and those of the same architecture and
    protocol that ask for as many sequences or more end as failed (``State.failure``); the others
    go on.
    """
    driver = _Driver(questions, folder, executor, before_training)
    try:
        driver.run(on_progress)
    except BaseException:
        with contextlib.suppress(UserError):
            folder.write_results()
        raise
    folder.write_results()
    return driver.states


class _Driver:
    def __init__(
        self,
        questions: Sequence[Question],
        folder: ResultsFolder,
        executor: Executor,
        before_training: Callable[[], None],
    ) -> None:
        self.states = [question.start() for question in questions]
        self._folder, self._executor = folder, executor
        self._before_training = before_training
        self._has_trained = False
        self._requests = Requests(question.kind for question in questions)
        self._too_large: dict[Kind, tuple[int, str]] = {}  # smallest size that failed, why

    def run(self, on_progress: Callable[[list[State]], None]) -> None:
        """Bring every question to its end."""
        for state in self.states:
            self._advance(state)
        on_progress(self.states)
        written = -math.inf
        while self._requests.has_any:
            self._submit()
            if time.monotonic() - written >= RESULTS_SECONDS:
                self._folder.write_results()
                written = time.monotonic()
            self._take(self._executor.wait(min(PROGRESS_SECONDS, self._folder.sync())))
            on_progress(self.states)

    def _submit(self) -> None:
        while self._requests.has_ready:
            if not self._has_trained:  # before has_idle, which may start a cluster
                self._before_training()
                self._has_trained = True
            if not self._executor.has_idle:
                return
            self._executor.submit(self._requests.take(self._executor.largest_job))

    def _take(self, ended: Sequence[tuple[Probe, Outcome | OutOfMemory]]) -> None:
        """Log what has ended; let the questions that waited for it go on."""
        finished: dict[str, list[tuple[Probe, Outcome]]] = {}
        for probe, outcome in ended:
            if not isinstance(outcome, OutOfMemory):
                finished.setdefault(probe.architecture.spec.name, []).append((probe, outcome))
        for name, rows in finished.items():
            self._folder.logs[name].append(rows)
        for probe, outcome in ended:
            if not isinstance(outcome, OutOfMemory):
                for state in self._requests.answered(probe):
                    self._advance(state)
            elif self._requests.lacked_memory(probe):
                smallest = self._too_large.get(probe.kind, (probe.n + 1, ""))
                size, reason = min(smallest, (probe.n, str(outcome)))
                self._too_large[probe.kind] = size, reason
                for state in self._requests.give_up(probe.kind, size):
                    state.failure = reason

    def _advance(self, state: State) -> None:
        """Let a question take the rounds that the log has; ask for the rest of the next one."""
        question = state.question
        name = question.architecture.spec.name
        while probes := state.wanted():
            found = {probe: self._folder.logs[name].get(probe) for probe in probes}
            known = {probe: outcome for probe, outcome in found.items() if outcome is not None}
            if missing := [probe for probe in found if probe not in known]:
                size, reason = self._too_large.get(question.kind, (math.inf, ""))
                if any(probe.n >= size for probe in missing):
                    state.failure = reason
                else:
                    self._requests.add(state, missing)
                return
            state.take([known[probe] for probe in probes])  # which may have one twice
        if row := state.row(self._folder.label(question.probe(1))):
            self._folder.results[name].put(row)
