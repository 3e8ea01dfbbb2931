"""Guesses where jobs wait in a queue, or go on by themselves, as on Ray they do."""

import pytest
from test_driver import InstantWorkers, outcome_of, run, searches
from test_speculation import RESULTS, SpareWorkers, fill, speculate

from mlp_experiments.mlp_utils import SPEC
from threshold_search.driver import drive
from threshold_search.executors.executor import Queue
from threshold_search.log.results_folder import ResultsFolder
from threshold_search.speculation import Speculation


class SharedCluster(SpareWorkers):
    """Others take half the places after some steps: jobs wait for those of ours that end."""

    def __init__(self, count, states):
        super().__init__(count)
        self.room, self.states, self.begun = count, states, []
        self.seen, self.given = set(), 0  # what waited, and guesses cancelled, after the last step

    @property
    def has_idle(self):
        return len(self.running) < 2 * self.count

    @property
    def has_spare(self):
        return len(self.running) < self.count

    def submit(self, job, then=None):
        waited = {state.probe for state in self.states if state.is_waiting}
        assert set(job) & waited or not self.waiting() & waited, "a guess while a job waits"
        InstantWorkers.submit(self, job)
        self.submitted += job
        self._begin()

    def cancel(self, probe):
        super().cancel(probe)
        self.begun = [probe for probe in self.begun if probe in self.running]
        self._begin()

    def waiting(self, seconds=0.0):
        return set(self.running) - set(self.begun)

    def going_on(self):
        return set()

    def wait(self, timeout):
        self.steps += 1
        if self.steps == 30:
            self.room = self.count // 2
        requested = {state.probe for state in self.states if state.is_waiting}
        if requested & self.seen and set(self.begun) - requested:
            assert len(self.cancelled) > self.given, "a guess stays before a request"
        probe = self.begun.pop(self.draw.randrange(len(self.begun)))
        self.running.remove(probe)
        self._begin()
        self.trained.append(probe)
        self.seen, self.given = self.waiting(), len(self.cancelled)
        return [(probe, outcome_of(probe))]

    def _begin(self):
        while len(self.begun) < min(self.room, len(self.running)):
            self.begun.append(next(p for p in self.running if p not in self.begun))
        self.running.sort(key=lambda probe: probe not in self.begun)
        self.begun = [probe for probe in self.running if probe in self.begun]


def test_guesses_give_way_to_what_waits(tmp_path):
    run(tmp_path / "plain", InstantWorkers())
    states = []
    workers = SharedCluster(30, states)
    assert isinstance(workers, Queue)
    with ResultsFolder(tmp_path / "shared", [SPEC]) as folder:
        drive(searches(), folder, workers, fill(states), speculate=True)
    assert workers.cancelled
    assert (tmp_path / "shared" / RESULTS).read_bytes() == (
        tmp_path / "plain" / RESULTS
    ).read_bytes()


class SlowStart(SpareWorkers):
    """Has room for every job, and needs a moment to begin it; guesses it begins only ``late``."""

    late = False

    def submit(self, job, then=None):
        super().submit(job)
        self.new.update(job)

    def waiting(self, seconds=0.0):
        return set(self.new) if self.late or not seconds else set()

    def going_on(self):
        return set()

    def wait(self, timeout):
        self.new.clear()
        return super().wait(timeout)


def test_a_job_that_is_about_to_begin_ends_no_guess(tmp_path):
    workers = SlowStart(40)
    workers.new = set()
    speculate(tmp_path, workers)
    assert len(workers.submitted) > len(workers.trained) and not workers.cancelled


class Begins(SlowStart):
    """Begins what searches wait for at once; nothing ends. Has more places from one look on."""

    places = (4, 6)

    def __init__(self, late):
        super().__init__(self.places[0])
        self.new, self.late, self.seen = set(), late, []

    def submit(self, job, then=None):
        super().submit(job)
        if then is not None:
            self.new.clear()

    def wait(self, timeout):
        self.seen.append(len(self.submitted))
        self.count = self.places[-1]
        if len(self.seen) == 3:
            raise KeyboardInterrupt
        return []


@pytest.mark.parametrize(("late", "submitted"), [(False, [4, 6, 6]), (True, [4, 4, 4])])
def test_guesses_wait_for_one_another_only_without_room(tmp_path, late, submitted):
    workers = Begins(late)
    with pytest.raises(KeyboardInterrupt):
        speculate(tmp_path, workers, searches(repeats=1, depths=(1,))[:1])
    assert workers.seen == submitted


def test_no_guess_before_the_jobs_that_searches_wait_for_have_begun(tmp_path):
    class Never(Begins):
        def submit(self, job, then=None):
            SlowStart.submit(self, job)

    workers = Never(late=False)
    with pytest.raises(KeyboardInterrupt):
        speculate(tmp_path, workers, searches(repeats=1, depths=(1,))[:1])
    assert workers.seen == [1, 1, 1]


class GroupWorkers(SpareWorkers):
    """Goes on with a search inside its worker, three probes at a time."""

    def __init__(self, count):
        super().__init__(count)
        self.then = {}

    def submit(self, job, then=None):
        if then is None:
            assert not self.then, "a guess for a search that goes on"
        super().submit(job)
        self.then[job[0]] = then

    def waiting(self, seconds=0.0):
        return set()

    def going_on(self):
        return set(self.then)

    def wait(self, timeout):
        probe = self.running.pop()
        then, found = self.then.pop(probe), []
        while probe is not None and len(found) < 3:
            found.append((probe, outcome_of(probe)))
            self.trained.append(probe)
            probe = then([outcome for _, outcome in found])
        return found


def test_what_a_worker_goes_on_with_is_not_guessed(tmp_path):
    (wanted,) = searches(repeats=1, depths=(1,))[:1]
    workers = GroupWorkers(15)
    speculate(tmp_path, workers, [wanted])
    assert len(set(workers.trained)) == len(workers.trained) > len(workers.submitted)


def test_guesses_come_when_it_goes_on_no_more():
    state = searches()[0].start()
    speculation = Speculation([state], lambda probe: None, {state.probe}.__contains__)
    speculation.renew(state)
    assert speculation.take({state.probe}) is None
    assert speculation.take() is not None


def test_the_note_before_training_comes_before_a_cluster_starts(tmp_path):
    begun = []

    class Cluster(InstantWorkers):
        @property
        def has_idle(self):
            assert begun, "started without a word"
            return super().has_idle

    with ResultsFolder(tmp_path, [SPEC]) as folder:
        drive(searches(), folder, Cluster(), before_training=lambda: begun.append(True))
    assert begun == [True]


@pytest.mark.parametrize("count", [2, 40])
def test_an_executor_without_a_queue_is_asked_for_none(count, tmp_path):
    assert not isinstance(SpareWorkers(count), Queue)
    speculate(tmp_path, SpareWorkers(count))
