"""How a driver connects to Ray: quietly, on the loopback interface where it can, undone after it.

Imports neither Ray nor torch.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import os
import signal
import site
import socket
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from command_line.interrupts import ENDING
from training.errors import UserError

CONNECT_SECONDS = 10.0
LOOPBACK = "127.0.0.1"
# Before Ray is imported: nothing is reported anywhere, no log of Ray's gets on our standard output,
# and its servers stay on the loopback interface, on Linux too.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",
}
ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
# Of a Ray that is started here. On a busy machine its processes take a minute to start, and what
# Ray gives up on it starts again, with even more to do for the machine.
PATIENT = {
    "RAY_gcs_server_port_wait_time_s": "600",
    "RAY_agent_register_timeout_ms": "600000",
    "RAY_worker_register_timeout_seconds": "600",
    "RAY_health_check_timeout_ms": "60000",
    # Ray's own is 15: beside other work a worker gets a thirtieth of its share.
    "RAY_worker_niceness": "0",
}
AGENT_PORTS = ("metrics_agent_port", "metrics_export_port", "runtime_env_agent_port")
LISTEN_PORT = "dashboard_agent_listen_port"
STORE_BYTES = 80 * 2**20  # nothing large is stored, and it is the least that Ray takes


def options_of_every_driver() -> dict[str, Any]:
    """Return what ``ray.init`` needs wherever the cluster is: quiet, and our code first.

    A node that has the folders this process imports from uses them: a checkout, a shared one.
    """
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    installed = {*map(sysconfig.get_path, names), *site.getsitepackages()}
    installed.add(site.getusersitepackages())
    paths = [
        path
        for path in sys.path
        if path and not any(Path(path).is_relative_to(folder) for folder in installed)
    ]
    return {
        "log_to_driver": False,
        "logging_level": logging.ERROR,
        "runtime_env": {"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}},
    }


def require_answer(address: str) -> None:
    """Raise UserError where nothing listens: Ray would try for many minutes, and say a lot."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (ValueError, OverflowError):
        raise UserError(f"--ray-address must be auto or HOST:PORT, got {address!r}") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"no Ray cluster answers at {address}: {reason}") from None


def is_loopback(address: str) -> bool:
    """Return whether HOST:PORT, or HOST, is this machine's own interface."""
    host = address.rpartition(":")[0] or address
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process's environment, and in the end what they were before."""
    before = os.environ.copy()
    os.environ |= values
    try:
        yield
    finally:
        for name in values:
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]


@contextmanager
def own_handlers() -> Iterator[None]:
    """Undo what Ray does to this process: SIGTERM, and what tracebacks are printed by."""
    handlers = {number: signal.getsignal(number) for number in ENDING}
    hook = sys.excepthook
    try:
        yield
    finally:
        sys.excepthook = hook
        for number, handler in handlers.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)


@contextmanager
def patient_start() -> Iterator[None]:
    """Let the nodes that are started within not depend on how soon their helpers are there.

    A node of Ray ends itself when its helpers have not told it their ports within 15 seconds, which
    no setting changes (https://github.com/ray-project/ray/issues/65983). It does not ask for a port
    that it is given, or finds in the file in which its helper would put it.

    These are insides of Ray 2.60. A version without them starts as it does by itself.
    """
    try:
        from ray._private import node as nodes

        kind: Any = nodes.Node
        start_raylet = kind.start_raylet
    except (ImportError, AttributeError):
        yield
        return

    def start_with_ports(node: Any, *arguments: Any, **more: Any) -> Any:
        with contextlib.suppress(AttributeError):
            _give_ports(node)
        return start_raylet(node, *arguments, **more)

    kind.start_raylet = start_with_ports
    try:
        yield
    finally:
        kind.start_raylet = start_raylet


def _give_ports(node: Any) -> None:
    parameters = node._ray_params
    has = {name: getattr(parameters, name) for name in (*AGENT_PORTS, LISTEN_PORT)}
    file = Path(node._session_dir, f"{LISTEN_PORT}_{node._node_id}")
    # Nothing is changed before all of it has been found.
    for (name, port), free in zip(has.items(), _free_ports(len(has)), strict=True):
        setattr(parameters, name, port or free)
    file.write_text(str(getattr(parameters, LISTEN_PORT)), encoding="ascii")


def _free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that nobody listens on now."""
    listeners = [socket.create_server((LOOPBACK, 0)) for _ in range(count)]
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports
