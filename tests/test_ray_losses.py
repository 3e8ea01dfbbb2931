"""What a lost worker of Ray costs its job: with a Ray that is made up."""

import types

import pytest

from mlp_experiments.mlp_utils import SPEC, MLPArchitecture
from threshold_search.ray_workers import RayWorkers, _Begun
from training.errors import OutOfMemory
from training.probe_types import Outcome, Probe

MLP = MLPArchitecture(4, 1)
PROBE = Probe(MLP, SPEC.protocol(), 0, 0, 3)
OUTCOME = Outcome(True, 1.0, 0.25, 7, "perfect", 0.5)
BEGUN, ANSWER = _Begun("a node", None), [(PROBE, OUTCOME)]


class RayError(Exception):
    pass


class NodeDiedError(RayError):
    pass


class WorkerCrashedError(RayError):
    pass


class FakeRay:
    """Each job says what the next of ``jobs`` has; a class of errors is raised."""

    exceptions = types.SimpleNamespace(
        RayError=RayError, NodeDiedError=NodeDiedError, RayTaskError=ZeroDivisionError
    )

    def __init__(self, jobs):
        self.jobs, self.submitted, self.cancelled = iter(jobs), [], []

    def options(self, **options):
        assert options["num_cpus"] == 1 and options["max_retries"] == 0
        return types.SimpleNamespace(remote=self._submit)

    def _submit(self, software, engine, job, then):
        self.submitted.append(job)
        return iter(next(self.jobs))

    def wait(self, streams, timeout, num_returns=1):
        return [s for s in streams if s not in self.cancelled], []

    def get(self, said):
        if isinstance(said, type):
            raise said
        return said

    def cancel(self, stream, force):
        self.cancelled.append(stream)


def outcome_of(ray, deadline=100.0):
    engine = types.SimpleNamespace(device="cpu", largest_job=1)
    executor = RayWorkers(1, {MLP: engine}, deadline)
    executor._ray = executor._remote = ray
    executor._nodes = types.SimpleNamespace(places=1, refused={}, look=lambda: None)
    executor.submit([PROBE])
    ended = []
    while not ended:
        ended = executor.wait(0.0)
    assert ended[0][0] == PROBE and not executor._flights
    return ended[0][1]


@pytest.mark.parametrize("losses", [[WorkerCrashedError], [NodeDiedError], [BEGUN, NodeDiedError]])
def test_what_is_not_the_jobs_fault_costs_it_little(losses):
    ray = FakeRay([losses] * 9 + [[BEGUN, ANSWER]])
    assert outcome_of(ray) == OUTCOME
    assert len(ray.submitted) == 10
    error = outcome_of(FakeRay([losses] * 10))
    assert isinstance(error, OutOfMemory) and "a worker died 10 times" in str(error)


def test_a_job_that_kills_its_workers_is_given_up():
    error = outcome_of(FakeRay([[BEGUN, WorkerCrashedError]] * 3))
    assert "a worker died 3 times" in str(error) and "WorkerCrashedError" in str(error)


def test_the_deadline_counts_from_the_beginning():
    assert outcome_of(FakeRay([[BEGUN, ANSWER]])) == OUTCOME
    error = outcome_of(FakeRay([[BEGUN, ANSWER]] * 3), deadline=-1.0)  # over when it begins
    assert "died 3 times" in str(error) and "took longer than the deadline" in str(error)
