"""Which nodes of a Ray cluster get jobs, and how many: with a Ray that is made up."""

import dataclasses
import sys
import time
import types

import pytest

from engines.cpu import usable_cpus
from threshold_search import ray_nodes
from threshold_search.ray_nodes import Greeting, RayNodes
from threshold_search.ray_workers import RayWorkers
from threshold_search.software import own_software
from training.errors import UserError

OURS = Greeting(None, "a processor")


class Lost(Exception):
    pass


class FakeRay:
    """A cluster whose nodes answer a greeting as :attr:`answers` has it, by their names, or never.

    ``resources`` has those of every node, also by its name.
    """

    exceptions = types.SimpleNamespace(
        GetTimeoutError=TimeoutError, RayTaskError=ZeroDivisionError, RayError=Lost
    )

    def __init__(self, **resources):
        self.resources, self.answers, self.asked = resources, {}, []

    def nodes(self):
        return [
            {
                "NodeID": name,
                "Alive": True,
                "NodeManagerAddress": f"address of {name}",
                "Resources": has,
            }
            for name, has in self.resources.items()
        ]

    def remote(self, scheduling_strategy, **options):
        assert options == {"num_cpus": 0, "max_retries": 0}
        node = scheduling_strategy
        return lambda greet: types.SimpleNamespace(remote=lambda driver: self._ask(node))

    def _ask(self, node):
        self.asked.append(node)
        return node

    def get(self, node, timeout):
        assert timeout == 0
        answer = self.answers.get(node, TimeoutError())
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
    return RayNodes(ray, resource, own_software(), may_grow)


def test_a_node_that_has_answered_waits_for_no_other(capsys, monkeypatch):
    ray = FakeRay(quick={"CPU": 4.0}, slow={"CPU": 2.0})
    ray.answers["quick"] = OURS
    nodes = nodes_of(ray)
    nodes.await_first()
    assert nodes.facts == {"quick": {"cpu": "a processor", "jobs": 4}} and nodes.places == 4
    ray.answers["slow"] = OURS
    nodes.look()
    assert nodes.places == 6 and ray.asked == ["quick", "slow"]
    assert capsys.readouterr().err == ""


def test_a_node_without_an_answer_is_left_out(capsys, monkeypatch):
    monkeypatch.setattr(ray_nodes, "GREETING_SECONDS", 0.05)
    ray = FakeRay(quick={"CPU": 1.0}, silent={"CPU": 1.0})
    ray.answers["quick"] = OURS
    nodes = nodes_of(ray)
    nodes.await_first()
    assert list(nodes.facts) == ["quick"] and list(nodes.refused) == ["silent"]
    assert capsys.readouterr().err.startswith("note: node address of silent is left out")
    del ray.resources["quick"]
    with pytest.raises(UserError, match="no node of the Ray cluster can train: no answer in"):
        nodes.look()


def test_a_lost_greeting_is_asked_for_again():
    ray = FakeRay(one={"CPU": 1.0})
    ray.answers["one"] = Lost()
    nodes = nodes_of(ray)
    nodes.await_first()
    assert nodes.places == 0
    nodes.look()
    ray.answers["one"] = OURS
    nodes.look()
    assert nodes.places == 1 and set(ray.asked) == {"one"} and len(ray.asked) > 1


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
    assert ray_nodes.greet(driver).difference == "gpu model C instead of model A"
    assert ray_nodes.greet(own_software()).difference is None  # nobody asks for a GPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    # Ray may show a greeting no GPU, where a job will have one, and be asked again.
    assert ray_nodes.greet(driver).difference is None


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
