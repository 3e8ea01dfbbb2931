"""Which nodes of a Ray cluster get jobs, and how many: with a Ray that is made up."""

import dataclasses
import sys
import time
import types

import pytest

from engines.cpu import usable_cpus
from threshold_search.executors import ray_nodes
from threshold_search.executors.ray_nodes import Greeting, RayNodes
from threshold_search.executors.ray_workers import RayWorkers
from threshold_search.executors.software import own_software
from training.errors import UserError

OURS = Greeting(None, "a processor")


class RayError(Exception):
    pass


class Lost(RayError):
    pass


class CannotImport(RayError):
    pass


class FakeRay:
    """A cluster whose nodes answer a greeting as :attr:`answers` has it, by their names, or never.

    ``resources`` has those of every node, also by its name.
    """

    exceptions = types.SimpleNamespace(
        GetTimeoutError=TimeoutError, RayTaskError=CannotImport, RayError=RayError
    )

    def __init__(self, **resources):
        self.resources, self.answers, self.asked = resources, {}, []
        self.functions = 0

    def nodes(self):
        if self.resources is None:
            raise RayError("RPC error: Deadline Exceeded\nmore of it")
        return [
            {
                "NodeID": name,
                "Alive": True,
                "NodeManagerAddress": f"address of {name}",
                "Resources": has,
            }
            for name, has in self.resources.items()
        ]

    def remote(self, **options):
        assert options == {"num_cpus": 0, "max_retries": 0}
        self.functions += 1
        return lambda greet: self

    def options(self, scheduling_strategy):
        return types.SimpleNamespace(
            remote=lambda driver, needed: self._ask(scheduling_strategy, needed)
        )

    def _ask(self, node, needed):
        assert needed == "engines"
        self.asked.append(node)
        return node

    def get(self, node, timeout):
        assert timeout == 0
        answer = self.answers.get(node, TimeoutError())
        if isinstance(answer, list):  # one after another
            answer = answer.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def wait(self, references, timeout):
        time.sleep(0.01)
        return [], references


@pytest.fixture(autouse=True)
def strategy(monkeypatch):
    """Ray's own need not be installed."""
    module = types.ModuleType("ray.util.scheduling_strategies")
    module.NodeAffinitySchedulingStrategy = lambda node, soft: node
    for name in ("ray", "ray.util"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(ray_nodes, "NODES_SECONDS", 0.0)
    monkeypatch.setattr(ray_nodes, "FIRST_SECONDS", 0.1)


def nodes_of(ray, resource="CPU", may_grow=True):
    return RayNodes(ray, resource, own_software(), may_grow, "engines")


def test_a_node_that_has_answered_waits_for_no_other(capsys, monkeypatch):
    ray = FakeRay(quick={"CPU": 4.0}, slow={"CPU": 2.0})
    ray.answers["quick"] = OURS
    nodes = nodes_of(ray)
    nodes.await_first()
    assert nodes.facts == {"quick": {"cpu": "a processor", "jobs": 4}} and nodes.places == 4
    assert nodes.unfit == {"slow"}  # no jobs before it has answered
    ray.answers["slow"] = OURS
    nodes.look()
    assert nodes.places == 6 and not nodes.unfit and ray.asked == ["quick", "slow"]
    assert capsys.readouterr().err == ""


def test_a_slow_node_is_reported_and_gets_jobs_later(capsys, monkeypatch):
    monkeypatch.setattr(ray_nodes, "SLOW_SECONDS", 0.05)
    ray = FakeRay(quick={"CPU": 1.0}, slow={"CPU": 1.0})
    ray.answers["quick"] = OURS
    nodes = nodes_of(ray)
    nodes.await_first()
    nodes.look()
    assert list(nodes.facts) == ["quick"] and not nodes.refused
    note = "note: node address of slow has not answered in 0 seconds; it gets jobs when it does\n"
    assert capsys.readouterr().err == note
    ray.answers["slow"] = OURS
    nodes.look()
    assert list(nodes.facts) == ["quick", "slow"]


def test_a_cluster_in_which_no_node_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(ray_nodes, "SILENCE_SECONDS", 0.05)
    with pytest.raises(UserError, match="no node of the Ray cluster has answered in 0 seconds"):
        nodes_of(FakeRay(one={"CPU": 1.0})).await_first()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Greeting("numpy 1 instead of 2"), "its bits could differ: numpy 1 instead of 2"),
        (CannotImport("traceback\nNo module named x"), "it cannot run the project: No module nam"),
    ],
)
def test_a_node_that_cannot_train_is_left_out(answer, reason, capsys):
    ray = FakeRay(good={"CPU": 1.0}, bad={"CPU": 4.0})
    ray.answers = {"good": OURS, "bad": answer}
    nodes = nodes_of(ray)
    nodes.await_first()
    assert nodes.places == 1 and nodes.unfit == {"bad"}
    assert capsys.readouterr().err.startswith(f"note: node address of bad is left out, {reason}")
    del ray.resources["good"]
    with pytest.raises(UserError, match=f"no node of the Ray cluster can train: {reason}"):
        nodes.look()


def test_a_lost_greeting_is_asked_for_again():
    ray = FakeRay(one={"CPU": 1.0})
    ray.answers["one"] = [Lost(), Lost(), OURS]
    nodes = nodes_of(ray)
    nodes.await_first()  # as the run record wants to know who trains
    assert nodes.places == 1 and ray.asked == ["one"] * 3
    assert ray.functions == 1


def test_a_node_whose_processes_die_is_asked_ever_more_seldom(monkeypatch, capsys):
    clock = types.SimpleNamespace(now=0.0, sleep=lambda seconds: None)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr(ray_nodes, "time", clock)
    monkeypatch.setattr(ray_nodes, "NODES_SECONDS", 1.0)
    ray = FakeRay(good={"CPU": 1.0}, bad={"CPU": 1.0})
    ray.answers = {"good": OURS, "bad": Lost()}
    nodes = nodes_of(ray)
    for _ in range(3600):
        nodes.look()
        clock.now += 1.0
        assert nodes.unfit >= {"bad"}
    assert ray.asked.count("bad") < 20
    note = "note: node address of bad has not answered in 120 seconds (6 workers died); it gets"
    assert capsys.readouterr().err.startswith(note)


def test_a_cluster_that_is_gone_is_said_to_be():
    ray = FakeRay(one={"CPU": 1.0})
    ray.answers["one"] = OURS
    nodes = nodes_of(ray)
    nodes.await_first()
    ray.resources = None
    with pytest.raises(
        UserError, match=r"^the Ray cluster answers no more: RPC error: Dead\w+ Ex\w+$"
    ):
        nodes.look()


def test_a_node_that_differs_in_a_job_gets_no_other():
    ray = FakeRay(one={"CPU": 1.0})
    ray.answers["one"] = OURS
    nodes = nodes_of(ray)
    nodes.await_first()
    nodes.refuse("one", "its bits could differ")
    assert nodes.unfit == {"one"} and not nodes.facts


@pytest.mark.parametrize(
    ("resource", "has", "jobs"),
    [
        ("CPU", {"CPU": 3.0, "GPU": 1.0}, 3),
        ("GPU", {"CPU": 8.0, "GPU": 4.0}, 4),
        ("GPU", {"CPU": 2.0, "GPU": 4.0}, 2),  # a job needs a CPU too
    ],
)
def test_jobs_of_a_node(resource, has, jobs):
    ray = FakeRay(one=has)
    ray.answers["one"] = OURS
    nodes = nodes_of(ray, resource)
    nodes.await_first()
    assert nodes.places == jobs


@pytest.mark.parametrize(
    ("resource", "has", "words"),
    [
        ("CPU", {"memory": 1.0}, "CPU"),
        ("GPU", {"CPU": 4.0}, "CPU and a GPU"),
        ("GPU", {"GPU": 1.0}, "CPU and a GPU"),
    ],
)
def test_a_cluster_that_cannot_run_a_job_is_said_to_be_one(
    resource, has, words, monkeypatch, capsys
):
    nodes = nodes_of(FakeRay(one=has), resource)
    nodes.await_first()  # a cluster may be about to grow
    nodes.look()
    note = f"note: no node of the Ray cluster has a {words} for jobs; waiting 300 seconds for one\n"
    assert capsys.readouterr().err == note
    monkeypatch.setattr(ray_nodes, "GROWTH_SECONDS", 0.0)
    with pytest.raises(UserError, match=f"no node of the Ray cluster has a {words} for jobs"):
        nodes.look()
    with pytest.raises(UserError, match=f"Ray finds no {words} on this machine"):
        nodes_of(FakeRay(one=has), resource, may_grow=False).await_first()


def test_a_cluster_that_grows_is_used():
    ray = FakeRay(head={"memory": 1.0})
    nodes = nodes_of(ray)
    nodes.await_first()
    ray.resources["worker"] = {"CPU": 2.0}
    ray.answers["worker"] = OURS
    nodes.look()
    assert nodes.places == 2


def test_another_gpu_is_a_difference(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "model A")
    driver = own_software("cuda")
    assert (driver.device, own_software().device) == ("cuda", "cpu")
    assert own_software("cuda").difference(driver) is None
    other = dataclasses.replace(driver, gpu="model B")
    assert other.difference(driver) == "gpu model B instead of model A"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "model C")
    assert ray_nodes.greet(driver, None).difference == "gpu model C instead of model A"
    assert ray_nodes.greet(own_software(), None).difference is None  # nobody asks for a GPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    # Ray may show a greeting no GPU, where a job will have one, and be asked again.
    assert ray_nodes.greet(driver, None).difference is None


class Stacked:
    """What RayWorkers asks of an engine."""

    largest_job = 16

    def __init__(self, device):
        self.device = device


@pytest.mark.parametrize(
    ("device", "count", "gpus", "expected"),
    [
        ("cuda", None, 4, (4, 4)),
        ("cuda", 2, 4, (2, 4)),
        ("cpu", 3, 4, (3, 0)),
        ("cpu", None, 4, (usable_cpus(), 0)),
    ],
)
def test_a_ray_on_this_machine_has_a_place_for_each_gpu(device, count, gpus, expected, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "model A")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with RayWorkers(count, {None: Stacked(device)}) as executor:
        arguments = executor._arguments()
        assert (arguments["num_cpus"], arguments["num_gpus"]) == expected
