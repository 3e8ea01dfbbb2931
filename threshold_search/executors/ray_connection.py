"""How a driver connects to Ray: quietly, a Ray of its own on the loopback interface, all undone.

Imports neither Ray nor torch.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import site
import socket
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from command_line.interrupts import ENDING
from engines.cpu import usable_cpus
from threshold_search.executors.executor import LOSSES_ALLOWED
from training.errors import UserError

NO_RAY = "--executor ray needs Ray, which is not installed: pip install '.[ray]'"
CONNECT_SECONDS = 10.0
# Ray reads these when it is imported: nothing is reported anywhere, no message of Ray's gets on our
# standard output, and what does not fit in memory is not tried for ever.
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",
    "RAY_task_oom_retries": str(LOSSES_ALLOWED - 1),
}
# Of a Ray that is started here: its servers stay on the loopback interface, on Linux too, and its
# workers, by default at niceness 15, get an ordinary share of a machine that does other work.
ON_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_worker_niceness": "0"}
STORE_BYTES = 80 * 2**20  # nothing large is stored, and it is the least that Ray takes


@contextlib.contextmanager
def connection(address: str | None, count: int | None, on_gpu: bool) -> Iterator[tuple[Any, bool]]:
    """Give Ray's module, connected, and whether its cluster was started here; in the end let go.

    ``address`` is that of a cluster, "auto" or HOST:PORT. Without one the cluster is of ``count``
    CPUs of this machine, by default all that this process may use (``on_gpu``: one per GPU). A
    program that is connected already, a notebook say, stays so. Raises :class:`UserError`.
    """
    if address not in (None, "auto"):
        require_answer(address or "")
    with contextlib.ExitStack() as undo:
        variables = QUIET
        arguments: dict[str, Any] = {"address": address}
        if address is None:
            prefix = "thresholds-ray-"
            folder = tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)
            variables = QUIET | ON_LOOPBACK | {"RAY_TMPDIR": undo.enter_context(folder)}
            gpus = _gpu_count() if on_gpu else 0  # Ray may find fewer than there are
            arguments = {
                "address": "local",
                "num_cpus": count or gpus or usable_cpus(),
                "num_gpus": gpus,
                "include_dashboard": False,
                "object_store_memory": STORE_BYTES,
            }
        undo.enter_context(environment(variables))
        with _own_handlers():
            try:
                import ray
            except ImportError:
                raise UserError(NO_RAY) from None
            is_there = ray.is_initialized()
            if not is_there:
                undo.callback(ray.shutdown)
                try:
                    ray.init(**arguments, **options_of_every_driver())
                except Exception as error:  # Ray raises plain ones, of a start that takes too long
                    where = address or "this machine"
                    raise UserError(f"Ray at {where}: {in_one_line(error)}") from None
        yield ray, address is None and not is_there


def in_one_line(error: Exception) -> str:
    """Return all that Ray has to say, without colours: the reason may be at the end of it."""
    plain = re.sub(r"\x1b\[\d*m|[~^]{2,}", "", str(error))
    return " ".join(plain.split()) or type(error).__name__


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


@contextlib.contextmanager
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


def _gpu_count() -> int:
    import torch

    return torch.cuda.device_count()


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


@contextlib.contextmanager
def _own_handlers() -> Iterator[None]:
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
