"""What connecting to Ray does to this process, and what it takes back. With a Ray made up."""

import os
import sys
import sysconfig
import types

import pytest

from threshold_search.executors.ray_connection import (
    PATIENT,
    QUIET,
    options_of_every_driver,
    patient_start,
)
from threshold_search.executors.ray_workers import RayWorkers
from training.errors import UserError


class RayError(Exception):
    pass


@pytest.fixture
def ray(monkeypatch):
    """A Ray whose cluster has no node; ``calls`` has what is asked of it."""
    ray = types.ModuleType("ray")
    ray.calls, ray.environ, ray.is_there = [], {}, False

    def init(**arguments):
        ray.calls.append("init")
        ray.environ = dict(os.environ)
        ray.folder = arguments.get("_temp_dir")

    def shutdown():
        assert ray.folder is None or os.path.isdir(ray.folder), "its folder went before it"
        ray.calls.append("shutdown")

    ray.init, ray.shutdown = init, shutdown
    ray.is_initialized = lambda: ray.is_there
    ray.remote, ray.nodes = lambda function: function, list
    ray.exceptions = types.SimpleNamespace(RayError=RayError)
    private = types.ModuleType("ray._private")
    private.node = types.ModuleType("ray._private.node")
    for module in (ray, private, private.node):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return ray


def executor_of(count=None, **options):
    engine = types.SimpleNamespace(device="cpu", largest_job=1)
    return RayWorkers(count, {None: engine}, **options)


def test_the_environment_is_in_the_end_what_it_was(ray, monkeypatch):
    kept, unset, *_ = sorted(PATIENT | QUIET)
    monkeypatch.setenv(kept, "ours")
    monkeypatch.delenv(unset, raising=False)
    before = dict(os.environ)
    with executor_of() as executor, pytest.raises(UserError, match="Ray finds no CPU"):
        _ = executor.has_idle
    assert ray.calls == ["init", "shutdown"] and not os.path.exists(ray.folder)
    assert ray.environ.items() >= (PATIENT | QUIET).items()
    assert dict(os.environ) == before


def test_a_connection_of_the_program_is_kept_and_its_cluster_may_grow(ray, capsys):
    ray.is_there = True
    with executor_of(1) as executor:
        assert executor.has_idle and not executor.has_spare
    assert ray.calls == []
    assert "waiting 300 seconds for one" in capsys.readouterr().err


def test_nodes_get_the_folders_of_the_project_alone(monkeypatch):
    installed = [sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")]
    beside = [f"{sys.prefix}-of-somebody/project", os.path.join(sys.prefix, "src", "project")]
    monkeypatch.setattr(sys, "path", ["", *installed, f"{installed[1]}/package", *beside])
    variables = options_of_every_driver()["runtime_env"]["env_vars"]
    assert variables["PYTHONPATH"].split(os.pathsep) == beside


class Node:
    """As Ray 2.60 has it."""

    def __init__(self, folder, **more):
        names = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port")
        ports = dict.fromkeys((*names, "dashboard_agent_listen_port"), 0)
        self._ray_params = types.SimpleNamespace(**ports | more)
        self._session_dir, self._node_id = folder, "id"

    def start_raylet(self, *arguments):
        return arguments


def test_a_node_is_given_its_ports(ray, tmp_path):
    sys.modules["ray._private.node"].Node = Node
    node, plain = Node(tmp_path, metrics_agent_port=77), Node.start_raylet
    with patient_start():
        assert node.start_raylet(1, 2) == (1, 2)
    assert Node.start_raylet is plain
    ports = vars(node._ray_params)
    assert ports["metrics_agent_port"] == 77 and all(ports.values())
    [file] = tmp_path.iterdir()
    assert file.read_text() == str(ports["dashboard_agent_listen_port"])


@pytest.mark.parametrize("missing", ["_ray_params", "_session_dir", "start_raylet", "all"])
def test_another_ray_starts_as_it_does_by_itself(missing, ray, tmp_path):
    kind = type("Node", (Node,), {})
    if missing != "all":
        sys.modules["ray._private.node"].Node = kind
    node = kind(tmp_path)
    if missing == "start_raylet":
        kind = type("Node", (), {})
        sys.modules["ray._private.node"].Node = kind
    elif missing != "all":
        delattr(node, missing)
    with patient_start():
        if missing != "start_raylet":
            assert node.start_raylet(3) == (3,)
    assert list(tmp_path.iterdir()) == []
    assert missing == "_ray_params" or not any(vars(node._ray_params).values())


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("nonsense", "must be auto or HOST:PORT, got 'nonsense'"),
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1: Connection refused"),
    ],
)
def test_an_address_without_a_cluster(address, words):
    with (
        RayWorkers(None, {}, address=address) as executor,
        pytest.raises(UserError, match=words),
    ):
        executor.has_idle  # noqa: B018


def test_without_ray_the_flag_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with (
        RayWorkers(1, {}) as executor,
        pytest.raises(UserError, match="needs Ray, which is not installed: pip install"),
    ):
        executor.has_idle  # noqa: B018
