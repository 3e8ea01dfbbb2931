"""Guesses for spare workers: which they are, that none is in the way, that no result shows them."""

import itertools
import random

import pandas as pd
import pytest
from test_driver import InstantWorkers, outcome_of, run, searches, true_threshold

from mlp_experiments.mlp_utils import SPEC
from threshold_search.driver import drive
from threshold_search.log.results_folder import ResultsFolder
from threshold_search.questions.bisection import next_size
from threshold_search.questions.searches import Trial
from threshold_search.speculation import guesses
from training.errors import OutOfMemory

LOG, RESULTS = "mlp_probes.csv", "mlp_results.csv"


class SpareWorkers(InstantWorkers):
    """Probes end in any order; memory is too short for more than ``largest`` sequences."""

    def __init__(self, count, seed=0, largest=10**9):
        super().__init__(count)
        self.draw, self.largest = random.Random(seed), largest
        self.submitted, self.cancelled, self.steps = [], [], 0

    @property
    def has_spare(self):
        return self.has_idle

    def submit(self, job, then=None):
        assert len(self.running) + len(job) <= max(self.count, 1)
        super().submit(job)
        self.submitted += job

    def cancel(self, probe):
        self.running.remove(probe)
        self.cancelled.append(probe)

    def wait(self, timeout):
        self.steps += 1
        probe = self.running.pop(self.draw.randrange(len(self.running)))
        if probe.n > self.largest:
            return [(probe, OutOfMemory("too large"))]
        self.trained.append(probe)
        return [(probe, outcome_of(probe))]


def speculate(folder, workers, wanted=None):
    with ResultsFolder(folder, [SPEC]) as results:
        return drive(wanted or searches(), results, workers, speculate=True)


@pytest.mark.parametrize("count", [1, 2, 18, 40, 1000])
@pytest.mark.parametrize("seed", range(3))
def test_the_results_are_those_without(count, seed, tmp_path):
    plain = InstantWorkers()
    run(tmp_path / "plain", plain)
    workers = SpareWorkers(count, seed)
    speculate(tmp_path / "spare", workers)
    found = (tmp_path / "spare" / RESULTS).read_bytes()
    assert found == (tmp_path / "plain" / RESULTS).read_bytes()
    assert len(set(workers.submitted)) == len(workers.submitted), "a probe trained twice"
    assert set(plain.trained) <= set(workers.trained) | set(workers.running)
    log = pd.read_csv(tmp_path / "spare" / LOG)
    assert len(log) == len(workers.trained) >= pd.read_csv(tmp_path / "plain" / LOG).shape[0]
    assert workers.cancelled == []
    again = InstantWorkers()
    run(tmp_path / "spare", again)  # with the extra rows in its log
    assert again.trained == []
    assert (tmp_path / "spare" / RESULTS).read_bytes() == found


def test_fewer_workers_than_searches_train_nothing_but_what_is_asked(tmp_path):
    plain, workers = InstantWorkers(), SpareWorkers(1)
    run(tmp_path / "plain", plain)
    speculate(tmp_path / "spare", workers)
    assert set(workers.submitted) == set(plain.trained)


def test_one_search_on_many_workers_takes_few_steps(tmp_path):
    (wanted,) = searches(repeats=1, depths=(1,))[:1]
    plain = InstantWorkers()
    run(tmp_path / "plain", plain, [wanted])

    class InStep(SpareWorkers):
        """Everything that trains ends at the same time."""

        def wait(self, timeout):
            self.steps += 1
            ended, self.running = self.running, []
            return [(probe, outcome_of(probe)) for probe in ended]

    workers = InStep(15)
    speculate(tmp_path / "spare", workers, [wanted])
    # Fifteen workers know the next four verdicts of a bisection, doublings two at a time.
    assert workers.steps <= len(plain.trained) / 2


class Waits(SpareWorkers):
    """Fails if a guess is submitted while a probe that a search waits for is not in flight."""

    def __init__(self, count, seed, states):
        super().__init__(count, seed)
        self.states = states

    def submit(self, job, then=None):
        waited = {state.probe for state in self.states if state.is_waiting}
        if not set(job) & waited:
            assert waited <= set(self.running), "a guess before a request"
        super().submit(job, then)


@pytest.mark.parametrize("count", [5, 19, 60])
def test_no_guess_goes_before_a_request(count, tmp_path):
    states = []
    workers = Waits(count, 1, states)
    with ResultsFolder(tmp_path, [SPEC]) as folder:
        drive(searches(), folder, workers, fill(states), speculate=True)
    assert len(workers.trained) > 0


def fill(states):
    def on_progress(seen):
        states[:] = seen

    return on_progress


class Shrinking(SpareWorkers):
    """Loses half its workers after some steps; the jobs that ran there wait for others."""

    def wait(self, timeout):
        if self.steps == 30:
            self.count = len(self.running) // 2
        return super().wait(timeout)

    def submit(self, job, then=None):
        assert len(self.running) < self.count
        InstantWorkers.submit(self, job)
        self.submitted += job


def test_guesses_make_room_when_workers_are_lost(tmp_path):
    run(tmp_path / "plain", InstantWorkers())
    workers = Shrinking(60)
    speculate(tmp_path / "spare", workers)
    assert workers.cancelled
    assert (tmp_path / "spare" / RESULTS).read_bytes() == (
        tmp_path / "plain" / RESULTS
    ).read_bytes()


def test_a_guess_that_memory_is_too_short_for_is_no_failure(tmp_path):
    wanted = [s for s in searches() if true_threshold(s.probe(1)) < 60]
    run(tmp_path / "plain", InstantWorkers(), wanted)
    workers = SpareWorkers(200, largest=64)
    states = speculate(tmp_path / "spare", workers, wanted)
    assert any(probe.n > 64 for probe in workers.submitted)
    assert all(state.failure is None for state in states)
    assert (tmp_path / "spare" / RESULTS).read_bytes() == (
        tmp_path / "plain" / RESULTS
    ).read_bytes()


class CrowdedWorkers(SpareWorkers):
    """Memory is short for large probes as long as two are training."""

    def wait(self, timeout):
        if len(self.running) > 1 and self.steps % 3 == 2 and self.running[0].n > 8:
            self.steps += 1
            return [(self.running.pop(0), OutOfMemory("too many"))]
        return super().wait(timeout)


@pytest.mark.parametrize("seed", range(5))
def test_what_lacked_the_memory_of_guesses_is_tried_again_without_them(seed, tmp_path):
    wanted = searches(repeats=1)[:1]
    run(tmp_path / "plain", InstantWorkers(), wanted)
    workers = CrowdedWorkers(6, seed)
    states = speculate(tmp_path / "crowded", workers, wanted)
    assert all(state.failure is None for state in states)
    assert workers.cancelled and len(workers.submitted) > len(set(workers.submitted))
    assert (tmp_path / "crowded" / RESULTS).read_bytes() == (
        tmp_path / "plain" / RESULTS
    ).read_bytes()


def test_trials_have_no_guesses(tmp_path):
    trials = [Trial(s.architecture, s.protocol, s.budget, s.repeat, 0, 9) for s in searches()]
    workers = SpareWorkers(1000)
    speculate(tmp_path, workers, trials)
    assert {probe.n for probe in workers.submitted} == {9}


# Which they are.


def state_of(thresholds, verdicts=()):
    """Return the first of several repeats after ``verdicts``, and the others at their ends."""
    wanted = searches(repeats=len(thresholds) + 1, depths=(1,))[: len(thresholds) + 1]
    states = [search.start() for search in wanted]
    given = iter(verdicts)
    states[0].advance(lambda probe: answer(next(given, None)))
    for state, threshold in zip(states[1:], thresholds, strict=True):
        state.advance(lambda probe, t=threshold: answer(probe.n <= t))
    return states


def answer(memorized):
    if memorized is None:
        return None
    return outcome_of(searches()[0].probe(1 if memorized else 10**6))


def sizes(states, count):
    found = guesses(states[0], states[1:], lambda probe: None)
    return [probe.n for _, probe in itertools.islice(found, count)]


def test_both_branches_of_a_bisection():
    # 2, 4, 8 memorized and 16 not: it asks for 12, then for 14 or 10, then 15, 13, 11 or 9.
    found = sizes(state_of([], [True, True, True, False]), 7)
    assert found[0] == 12 and set(found[1:3]) == {10, 14} and set(found[3:]) == {9, 11, 13, 15}


def test_other_repeats_say_which_branch_is_likely():
    low = sizes(state_of([9, 9, 9, 9], [True, True, True, False]), 3)
    high = sizes(state_of([15, 15, 15, 15], [True, True, True, False]), 3)
    assert low == [12, 10, 9] and high == [12, 14, 15]


def test_doublings_go_on_as_far_as_other_repeats_went():
    assert max(sizes(state_of([]), 50)) <= 2 * 4
    assert sizes(state_of([500, 500, 500]), 8) == [2, 4, 8, 16, 32, 64, 128, 256]


def test_chances_fall_and_add_up():
    states = state_of([], [True, True, True, False])
    found = list(guesses(states[0], [], lambda probe: None))
    chances = [chance for chance, _ in found]
    assert chances == sorted(chances, reverse=True) and chances[0] == 1
    for level in range(3):
        assert sum(chances[2**level - 1 : 2 ** (level + 1) - 1]) == pytest.approx(1)


def test_known_verdicts_are_followed():
    states = state_of([], [True, True, True, False])
    found = guesses(states[0], [], lambda probe: answer(probe.n <= 12) if probe.n == 12 else None)
    assert next(found)[1].n == 14
    assert next_size(10**6, (True, True, True, False, True)) == 14
