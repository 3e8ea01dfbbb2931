"""What a node of a Ray cluster does with a job. Imports no torch before it trains."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from threshold_search.executors.executor import Answer, run_job, start_worker
from threshold_search.executors.software import Software, own_software
from training.errors import UserError
from training.probe import Probe

if TYPE_CHECKING:
    from engines.engine import Engine

START_SECONDS = 600.0  # that a process may take until it can train


@dataclass(frozen=True)
class Begun:
    """What a node says before it trains a job: who it is, and why it must not, if it must not."""

    node: str
    difference: str | None


@functools.cache  # once in a process
def _prepare(driver: Software) -> tuple[str | None, UserError | None]:
    """Return how this process differs from the driver, and why it cannot train."""
    # One that hangs, in a file system that does not answer, say, is to be a lost worker.
    end = threading.Timer(START_SECONDS, os._exit, [1])
    end.daemon = True
    end.start()
    try:
        difference = own_software(driver.device).difference(driver)
        return difference, None if difference else start_worker()
    finally:
        end.cancel()


def serve(driver: Software, engine: Engine, job: list[Probe]) -> Iterator[Begun | Answer]:
    """Train a job on a node: say that it begins, then how it ended."""
    difference, refusal = _prepare(driver)
    yield Begun(_own_node(), difference)
    if not difference:
        yield refusal or run_job(engine, job)


def _own_node() -> str:
    """Return Ray's id of the node that this process is on."""
    import ray

    return str(ray.get_runtime_context().get_node_id())
