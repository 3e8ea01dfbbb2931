"""What becomes of the jobs on a Ray cluster: losses, deadlines, queues. With a Ray made up."""

import types

import pytest

from mlp_experiments.mlp_utils import SPEC, MLPArchitecture
from threshold_search.executors import executor as executors
from threshold_search.executors import ray_job, ray_workers
from threshold_search.executors.executor import GROUP_SECONDS, NO_MEMORY_TO_START, start_worker
from threshold_search.executors.ray_job import Begun
from threshold_search.executors.ray_workers import RayWorkers
from threshold_search.executors.software import own_software
from training.errors import OutOfMemory, UserError
from training.probe import Outcome, Probe

MLP = MLPArchitecture(4, 1)
PROBE, OTHER, THIRD = (Probe(MLP, SPEC.protocol(), 0, 0, n) for n in (3, 4, 5))
OUTCOME = Outcome(True, 1.0, 0.25, 7, "perfect", 0.5)
BEGUN, ANSWER = Begun("a node", None), [(PROBE, OUTCOME)]
SILENT = object()  # a job says nothing more


class RayError(Exception):
    pass


class NodeDiedError(RayError):
    pass


class WorkerCrashedError(RayError):
    pass


class RayTaskError(RayError):
    pass


class Stream:
    def __init__(self, job, options, script):
        self.job, self.options, self.script = job, options, [*script, SILENT]

    def __next__(self):
        return self.script.pop(0)


class FakeRay:
    """Each job says what the next of ``jobs`` has, as one that submits more; errors are raised.

    Time passes while nobody says anything.
    """

    exceptions = types.SimpleNamespace(
        RayError=RayError, NodeDiedError=NodeDiedError, RayTaskError=RayTaskError
    )

    def __init__(self, jobs):
        self.jobs, self.streams, self.cancelled, self.now = iter(jobs), [], [], 1000.0

    @property
    def submitted(self):
        return [stream.job for stream in self.streams]

    def options(self, **options):
        assert options["num_cpus"] == 1 and options["max_retries"] == 0
        return types.SimpleNamespace(remote=lambda *job: self._submit(options, *job))

    def _submit(self, options, software, engine, job, then):
        self.streams.append(Stream(job, options, next(self.jobs)))
        return self.streams[-1]

    def wait(self, streams, timeout, num_returns=1):
        ready = [s for s in streams if s.script[0] is not SILENT]
        assert not set(streams) & set(self.cancelled)
        if not ready:
            self.now += timeout
        return ready[:num_returns], ready[num_returns:]

    def get(self, said):
        if isinstance(said, type):
            raise said("ModuleNotFoundError: No module named 'x'")
        return said

    def cancel(self, stream, force):
        assert force
        self.cancelled.append(stream)


class Nodes(types.SimpleNamespace):
    """One node with as many places as one likes."""

    def __init__(self, places=1):
        super().__init__(places=places, facts={"a node": {}}, unfit=frozenset(), looks=[])
        self.refused, self.failure = {}, None

    def look(self, at_once=False):
        self.looks.append(at_once)
        if self.failure is not None:
            raise self.failure

    def refuse(self, node, reason):
        self.refused[node] = reason
        self.facts.pop(node)
        self.unfit |= {node}


@pytest.fixture
def executor_of(monkeypatch):
    """A function from a Ray to an executor on it, whose time is that Ray's."""

    def executor_of(ray, deadline=100.0, places=1, count=None):
        clock = types.SimpleNamespace(monotonic=lambda: ray.now, sleep=lambda seconds: None)
        monkeypatch.setattr(ray_workers, "time", clock)
        engine = types.SimpleNamespace(device="cpu", largest_job=1)
        executor = RayWorkers(count, {MLP: engine}, deadline)
        executor._ray = executor._remote = ray
        executor._nodes = Nodes(places)
        return executor

    return executor_of


@pytest.fixture
def outcome_of(executor_of):
    """A function from a Ray to what becomes of one job there."""

    def outcome_of(ray, **options):
        executor = executor_of(ray, **options)
        executor.submit([PROBE])
        ended = []
        while not ended:
            ended = executor.wait(1.0)
        assert ended[0][0] == PROBE and not executor._flights
        return ended[0][1]

    return outcome_of


@pytest.mark.parametrize(
    "losses", [[WorkerCrashedError], [NodeDiedError], [BEGUN, NodeDiedError], [RayTaskError]]
)
def test_what_is_not_the_jobs_fault_costs_it_little(losses, outcome_of):
    ray = FakeRay([losses] * 9 + [[BEGUN, ANSWER]])
    assert outcome_of(ray) == OUTCOME
    assert len(ray.submitted) == 10
    error = outcome_of(FakeRay([losses] * 10))
    assert isinstance(error, OutOfMemory) and "a worker died 10 times" in str(error)
    assert "sequences, 10 of them with its node or before it began (" in str(error)


def test_a_job_that_kills_its_workers_is_given_up(outcome_of):
    error = outcome_of(FakeRay([[BEGUN, WorkerCrashedError]] * 3))
    assert "a worker died 3 times training mlp 4x1 on 3 sequences (WorkerCr" in str(error)


def test_losses_of_its_own_and_others_are_counted_apart(outcome_of):
    own, other = [BEGUN, WorkerCrashedError], [NodeDiedError]
    assert outcome_of(FakeRay([own, own, *[other] * 9, [BEGUN, ANSWER]])) == OUTCOME
    error = outcome_of(FakeRay([other, other, own, other, own, own]))
    assert "died 6 times" in str(error) and "3 of them with its node" in str(error)


def test_a_cancelled_job_starts_without_losses(executor_of):
    own = [BEGUN, WorkerCrashedError]
    ray = FakeRay([own, own, [], own, own, [BEGUN, ANSWER]])
    executor = executor_of(ray)
    executor.submit([PROBE])
    for _ in range(5):
        assert executor.wait(1.0) == []
    executor.cancel(PROBE)
    executor.submit([PROBE])
    ended = []
    while not ended:
        ended = executor.wait(1.0)
    assert ended == ANSWER


def test_what_a_job_raises_once_it_has_begun_is_a_mistake(outcome_of):
    with pytest.raises(RuntimeError, match="No module named 'x'"):
        outcome_of(FakeRay([[BEGUN, RayTaskError]]))


def test_a_node_that_differs_costs_a_job_nothing(executor_of):
    ray = FakeRay([[Begun("a node", "numpy 2 instead of 1")], [BEGUN, ANSWER]])
    executor = executor_of(ray)
    executor.submit([PROBE])
    assert executor.wait(1.0) == [] and executor.wait(1.0) == []
    assert executor._nodes.refused == {"a node": "its bits could differ: numpy 2 instead of 1"}
    assert executor.wait(1.0) == ANSWER
    assert ray.streams[1].options["label_selector"] == {"ray.io/node-id": "!in(a node)"}


def test_no_job_goes_to_a_node_without_an_answer(executor_of):
    ray = FakeRay([[RayTaskError], [BEGUN, ANSWER]])
    executor = executor_of(ray)
    executor.submit([PROBE])
    assert "label_selector" not in ray.streams[0].options  # so that the cluster may grow
    executor._nodes.unfit = frozenset({"c", "b"})  # they have joined
    executor.wait(1.0)
    assert executor._nodes.looks[0], "the nodes are looked at before it is submitted again"
    assert ray.streams[1].options["label_selector"] == {"ray.io/node-id": "!in(b,c)"}


def test_what_no_node_may_take_any_more_is_submitted_again(executor_of):
    ray = FakeRay([[], [BEGUN, ANSWER]])
    executor = executor_of(ray)
    executor._nodes.unfit = frozenset({"late"})
    executor.submit([PROBE])
    executor._nodes.unfit, executor._nodes.facts = frozenset(), {}  # the only one is gone
    executor.wait(1.0)
    assert len(ray.streams) == 1  # there is none that could
    executor._nodes.facts = {"late": {}}
    executor.wait(1.0)
    assert ray.cancelled == [ray.streams[0]] and len(ray.streams) == 2
    assert executor.wait(1.0) == [] and executor.wait(1.0) == ANSWER


def test_the_deadline_counts_from_the_beginning(executor_of):
    ray = FakeRay([[], [BEGUN, ANSWER]])
    executor = executor_of(ray, deadline=100.0)
    executor.submit([PROBE])
    executor.wait(5000.0)  # no room: it waits
    assert ray.cancelled == [] and len(ray.streams) == 1
    ray.streams[0].script[:0] = [BEGUN]
    executor.wait(1.0)
    executor.wait(90.0)
    assert ray.cancelled == []
    executor.wait(20.0)
    assert ray.cancelled == [ray.streams[0]] and len(ray.streams) == 2


def test_a_job_that_is_late_again_and_again_is_given_up(outcome_of):
    ray = FakeRay([[BEGUN]] * 3)
    error = outcome_of(ray, deadline=10.0)
    assert "died 3 times" in str(error) and "(took longer than the deadline)" in str(error)
    assert len(ray.cancelled) == 3


def test_what_has_ended_is_handed_over_before_the_cluster_is_given_up(executor_of):
    executor = executor_of(FakeRay([[BEGUN, ANSWER], []]), places=2)
    executor.submit([PROBE])
    executor.submit([OTHER])
    executor.wait(1.0)
    executor._nodes.failure = UserError("the Ray cluster answers no more")
    assert executor.wait(1.0) == ANSWER
    with pytest.raises(UserError, match="answers no more"):
        executor.wait(1.0)


def test_which_jobs_wait_for_a_worker(executor_of):
    ray = FakeRay([[BEGUN], []])
    executor = executor_of(ray, places=3)
    executor.submit([PROBE])
    assert executor.waiting() == {PROBE}
    executor.wait(1.0)
    assert executor.waiting() == set() and executor.has_spare
    executor.submit([OTHER])
    assert executor.waiting() == {OTHER} and executor.waiting(10.0) == set()
    executor.wait(11.0)
    assert executor.waiting(10.0) == {OTHER}


def test_a_ray_of_our_own_leaves_the_cpus_of_others_alone(executor_of, monkeypatch):
    executor = executor_of(FakeRay([[]]), places=3)
    monkeypatch.setattr(executor._cpus, "has_one", lambda jobs: False)
    assert executor.has_spare  # on a cluster this machine's own CPUs are not what counts
    executor._is_own = True
    assert not executor.has_spare


def test_workers_bound_what_is_in_flight_where_the_cluster_is_not_ours(executor_of):
    executor = executor_of(FakeRay([[]] * 9), places=4, count=3)  # connected by somebody else
    while executor.has_idle:
        executor.submit([PROBE])
    assert len(executor._flights) == 3
    executor._is_own = True  # it has that many CPUs
    while executor.has_idle:
        executor.submit([PROBE])
    assert len(executor._flights) == 8


def test_a_copy_of_what_came_then_is_ended(executor_of):
    both = [(PROBE, OUTCOME), (OTHER, OUTCOME)]
    ray = FakeRay([[BEGUN, both], [BEGUN], [BEGUN]])
    executor = executor_of(ray, places=3)
    executor.submit([PROBE], lambda outcomes: None)
    executor.submit([OTHER])
    executor.submit([THIRD])
    assert executor.going_on() == {PROBE}
    executor.wait(1.0)
    assert executor.going_on() == {PROBE}
    assert executor.wait(1.0) == both
    assert ray.cancelled == [ray.streams[1]]
    assert [flight.job for flight in executor._flights.values()] == [[THIRD]]


def test_a_group_is_over_after_its_seconds(executor_of):
    executor = executor_of(FakeRay([[BEGUN]]))
    executor.submit([PROBE], lambda outcomes: None)
    executor.wait(1.0)
    executor.wait(GROUP_SECONDS + 1)
    assert executor.going_on() == set()


# In the worker.


class Left(BaseException):
    """The process has ended."""


@pytest.fixture
def exits(monkeypatch):
    statuses = []

    def leave(status):
        statuses.append(status)
        raise Left

    monkeypatch.setattr(executors.os, "_exit", leave)
    yield statuses
    ray_job._prepare.cache_clear()


def test_a_worker_without_memory_to_start_leaves(exits, monkeypatch):
    def import_torch():
        raise OutOfMemory("not enough memory to import torch")

    monkeypatch.setattr(executors, "import_torch", import_torch)
    for start in (start_worker, lambda: next(ray_job.serve(own_software(), None, [PROBE], None))):
        with pytest.raises(Left):
            start()
    assert exits == [NO_MEMORY_TO_START] * 2


def test_a_worker_that_cannot_begin_leaves(exits, monkeypatch):
    """The thread that ends it finds it still there."""

    def hang():
        while not exits:
            pass

    monkeypatch.setattr(ray_job, "START_SECONDS", 0.01)
    monkeypatch.setattr(ray_job, "start_worker", hang)
    monkeypatch.setattr(ray_job.threading, "excepthook", lambda arguments: None)
    ray_job._prepare(own_software())
    assert exits == [1]
