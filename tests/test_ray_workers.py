"""What the Ray executor asks of Ray and makes of its answers, with a Ray made up.

On a real cluster it is asked in tests/test_executors.py and tests/test_own_ray.py.
"""

import dataclasses
import os
import sys
import sysconfig
import types

import pytest
from faulty_engine import FaultyEngine, outcome_of

from engines.cpu import usable_cpus
from mlp_experiments.mlp_utils import SPEC, MLPArchitecture
from threshold_search.executors import ray_workers
from threshold_search.executors.ray_connection import ON_LOOPBACK, QUIET, options_of_every_driver
from threshold_search.executors.ray_workers import RayWorkers, serve
from threshold_search.executors.software import own_software
from training.errors import OutOfMemory, UserError
from training.probe import Probe

KIND = MLPArchitecture(4, 1), SPEC.protocol()


class RayError(Exception):
    pass


class RayTaskError(RayError):
    pass


class WorkerCrashedError(RayError):
    pass


class FakeRay(types.ModuleType):
    """Runs calls in this process, or raises the next of ``errors``; ``calls`` has their sizes."""

    exceptions = types.SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self):
        super().__init__("ray")
        self.resources = [{"CPU": 2.0}]  # of every node
        self.calls, self.errors, self.options, self.arguments = [], [], None, None
        self.is_there = self.is_gone = False

    def is_initialized(self):
        return self.is_there

    def init(self, **arguments):
        self.arguments, self.environ, self.is_there = arguments, dict(os.environ), True

    def shutdown(self):
        self.is_there = False

    def get_runtime_context(self):
        return types.SimpleNamespace(gcs_address="the head")

    def nodes(self):
        return [
            {"Alive": True, "NodeManagerAddress": f"10.0.0.{i}", "Resources": has}
            for i, has in enumerate(self.resources)
        ]

    def remote(self, **options):
        self.options = options
        return lambda function: types.SimpleNamespace(remote=self._call)

    def _call(self, software, deadline, jobs):
        self.calls.append([probe.n for _, job in jobs for probe in job])
        error = self.errors.pop(0) if self.errors else None
        return lambda: serve(software, deadline, jobs) if error is None else self._raise(error)

    def _raise(self, error):
        raise error

    def wait(self, calls, timeout, num_returns=1):
        return calls[:num_returns], calls[num_returns:]

    def get(self, call):
        return call()


@pytest.fixture
def ray(monkeypatch):
    ray = FakeRay()

    def require_answer(address):
        if ray.is_gone:
            raise UserError(f"no Ray cluster answers at {address}")

    monkeypatch.setattr(ray_workers, "require_answer", require_answer)
    monkeypatch.setitem(sys.modules, "ray", ray)
    yield ray
    ray_workers._refusal.cache_clear()


@dataclasses.dataclass(frozen=True)
class Engine(FaultyEngine):
    """Says that a probe took as long as ``said`` has it."""

    said: float = 0.5

    def _train(self, probes, on_epoch):
        return [
            (dataclasses.replace(outcome_of(probe), seconds=self.said), dict) for probe in probes
        ]


def probe_of(n):
    return Probe(*KIND, seed=0, repeat=0, n=n)


def executor_of(count=None, engine=None, **options):
    return RayWorkers(count, {KIND: engine or Engine()}, **options)


def train(executor, sizes):
    """Submit jobs of one probe as the driver does; return what becomes of each size."""
    sizes, found = list(sizes), []
    while len(found) < len(sizes):
        while sizes[len(found) :] and executor.has_idle and executor.submitted < len(sizes):
            executor.submit([probe_of(sizes[executor.submitted])])
            executor.submitted += 1
        found += executor.wait(0.0)
    return {probe.n: outcome for probe, outcome in found}


@pytest.fixture
def trained(ray):
    """A function from sizes and an executor's arguments to what becomes of them."""

    def trained(sizes, **options):
        with executor_of(**options) as executor:
            executor.submitted = 0
            return train(executor, sizes)

    return trained


def test_quick_jobs_share_calls_of_a_few_seconds(trained, ray):
    found = trained(range(1, 101))
    assert {n: o.memorized for n, o in found.items()} == {n: n <= 20 for n in range(1, 101)}
    first, others = ray.calls[:4], ray.calls[4:]  # at first nobody knows how long they take
    assert [len(call) for call in first] == [1] * 4
    assert max(map(len, others)) == 10  # of half a second each
    assert sorted(n for call in ray.calls for n in call) == list(range(1, 101))
    assert ray.options == {"num_cpus": 1, "num_gpus": 0, "max_retries": 2}


def test_jobs_that_take_longer_have_calls_of_their_own(trained, ray):
    trained(range(1, 20), engine=Engine(said=1.5))
    assert [len(call) for call in ray.calls] == [1] * 19


def test_what_a_call_has_no_time_for_goes_into_another(trained, ray, monkeypatch):
    monkeypatch.setattr(ray_workers, "PACK_SECONDS", 0.0)  # of a worker
    monkeypatch.setattr(RayWorkers, "_expected", lambda self, job: 0.0)
    monkeypatch.setattr(RayWorkers, "has_idle", True)
    assert trained(range(1, 9)).keys() == set(range(1, 9))
    assert len(ray.calls) == 8 and len(ray.calls[0]) > 1


def test_a_lost_call_is_made_again_job_by_job(trained, ray):
    """To find the one that kills; the others are not given up."""
    lost = WorkerCrashedError("worker died")
    ray.errors = [None] * 4 + [lost] + [None] * 3 + [lost]
    found = trained(range(1, 13))
    assert ray.calls[4:6] == [[5, 6], [7, 8]] and ray.calls[8:] == [[5], [6]]
    error = found.pop(5)
    assert isinstance(error, OutOfMemory) and "3 times training mlp 4x1 on 5 seq" in str(error)
    assert found == {n: dataclasses.replace(outcome_of(probe_of(n)), seconds=0.5) for n in found}
    assert len(found) == 11


def test_what_has_ended_is_handed_over_before_the_cluster_is_given_up(ray):
    ray.errors = [None, WorkerCrashedError("the cluster is gone")]
    with executor_of() as executor:
        executor.submit([probe_of(3)])
        executor.submit([probe_of(4)])
        assert executor.has_idle
        ray.is_gone = True
        assert [probe.n for probe, _ in executor.wait(0.0)] == [3]
        with pytest.raises(UserError, match="cluster is gone: no Ray cluster answers at the head"):
            executor.wait(0.0)


def test_a_node_without_the_project_ends_the_search(trained, ray):
    ray.errors = [RayTaskError("\x1b[36mray::serve()\x1b[39m (ip=10.0.0.7)\n  ^^^^\nNo module x")]
    message = (
        r"^a node of the Ray cluster cannot be used: ray::serve\(\) \(ip=10.0.0.7\) No module x$"
    )
    with pytest.raises(UserError, match=message):
        trained([3])


def test_a_node_of_other_software_refuses(ray):
    ray.util = types.SimpleNamespace(get_node_ip_address=lambda: "10.0.0.7")
    driver = dataclasses.replace(own_software(), numpy="1")
    [refusal] = serve(driver, 100.0, [(Engine(), [probe_of(3)])])
    assert str(refusal).startswith(
        "node 10.0.0.7 of the Ray cluster cannot be used, its bits could"
    )
    assert "numpy" in str(refusal) and str(refusal).endswith("instead of 1")


def test_another_gpu_is_a_difference(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "model A")
    driver = own_software("cuda")
    assert (driver.device, own_software().device) == ("cuda", "cpu")
    assert own_software("cuda").difference(driver) is None
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "model C")
    assert own_software("cuda").difference(driver) == "gpu model C instead of model A"
    assert own_software().difference(own_software()) is None  # nobody asks for a GPU


@pytest.mark.parametrize(
    ("device", "resources", "count", "calls"),
    [
        ("cpu", [{"CPU": 3.0, "GPU": 1.0}], None, 6),
        ("cpu", [{"CPU": 2.0}, {"CPU": 1.0}, {"memory": 1.0}], None, 6),
        ("cpu", [{"CPU": 3.0}], 4, 4),  # bounds what is in flight on a cluster that is not ours
        ("cuda", [{"CPU": 8.0, "GPU": 4.0}], None, 8),
        ("cuda", [{"CPU": 2.0, "GPU": 4.0}], None, 4),  # a job needs a CPU too
    ],
)
def test_calls_in_flight(device, resources, count, calls, ray, monkeypatch):
    monkeypatch.setattr(ray_workers, "own_software", lambda device: None)
    ray.is_there, ray.resources = True, resources
    with executor_of(count, Engine(device=device)) as executor:
        for submitted in range(calls):
            assert executor.has_idle, submitted
            executor.submit([probe_of(3)])
        assert not executor.has_idle


def test_a_cluster_may_get_its_first_node_later(ray, capsys):
    ray.is_there, ray.resources = True, [{"memory": 1.0}]
    with executor_of(engine=Engine()) as executor:
        assert executor.has_idle and executor.nodes() == []
        note = "note: no node of Ray has a CPU for jobs; waiting for one\n"
        assert capsys.readouterr().err == note
        ray.resources = [{"CPU": 4.0}]
        executor._look(at_once=True)
        assert executor.nodes() == [{"node": "10.0.0.0", "jobs": 4}]
    assert ray.is_there and ray.arguments is None, "the program's own connection stays"


@pytest.mark.parametrize(
    ("device", "count", "expected"),
    [("cuda", None, (4, 4)), ("cuda", 2, (2, 4)), ("cpu", 3, (3, 0)), ("cpu", None, None)],
)
def test_a_ray_of_its_own(device, count, expected, ray, monkeypatch):
    import torch

    monkeypatch.setattr(ray_workers, "own_software", lambda device: None)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    kept, unset, *_ = sorted(QUIET | ON_LOOPBACK)
    monkeypatch.setenv(kept, "ours")
    monkeypatch.delenv(unset, raising=False)
    before = dict(os.environ)
    with executor_of(count, Engine(device=device)) as executor:
        assert executor.has_idle
        assert ray.environ.items() >= (QUIET | ON_LOOPBACK).items()
        assert os.path.isdir(ray.environ["RAY_TMPDIR"])
    found = ray.arguments["num_cpus"], ray.arguments["num_gpus"]
    assert found == (expected or (usable_cpus(), 0)) and ray.arguments["address"] == "local"
    assert dict(os.environ) == before and not ray.is_there
    assert not os.path.exists(ray.environ["RAY_TMPDIR"])


def test_all_that_ray_says_of_a_failed_start_is_told(ray, monkeypatch):
    monkeypatch.setattr(ray, "init", lambda **arguments: ray._raise(ValueError("it\nfailed")))
    with executor_of() as executor, pytest.raises(UserError, match=r"^Ray at this machine: it fai"):
        executor.nodes()


def test_nodes_get_the_folders_of_the_project_alone(monkeypatch):
    installed = [sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")]
    beside = [f"{sys.prefix}-of-somebody/project", os.path.join(sys.prefix, "src", "project")]
    monkeypatch.setattr(sys, "path", ["", *installed, f"{installed[1]}/package", *beside])
    variables = options_of_every_driver()["runtime_env"]["env_vars"]
    assert variables["PYTHONPATH"].split(os.pathsep) == beside


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nonsense", "must be auto or HOST:PORT, got 'nonsense'"),
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1: Connection refused"),
        (None, "needs Ray, which is not installed: pip install"),
    ],
)
def test_without_a_cluster_or_ray(address, words, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with executor_of(address=address) as executor, pytest.raises(UserError, match=words):
        executor.nodes()
