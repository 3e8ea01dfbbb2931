"""How a driver connects to Ray: quietly, on the loopback interface where it can, undone after it.

Imports neither Ray nor torch.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
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


def options_of_every_driver() -> dict[str, Any]:
    """Return what ``ray.init`` needs wherever the cluster is: quiet, and our code first.

    A node that has the folders this process imports from uses them: a checkout, a shared one.
    """
    installed = (sys.prefix, sys.base_prefix)
    paths = [path for path in sys.path if path and not path.startswith(installed)]
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
