"""Ray: a remote function per job, on the CPUs or GPUs of this machine or of a cluster.

Only this process, the driver, knows what is to be done and writes. Ray itself repeats nothing: what
a worker, a node or a memory limit took with it is submitted again from here. Ray is an optional
extra, imported when the first job starts. Imports no torch.
"""

from __future__ import annotations

import functools
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from engines.cpu import usable_cpus
from threshold_search.executor import DEADLINE_SECONDS, Answer, NextProbe, run_job, start_worker
from threshold_search.jobs import LOSSES_ALLOWED, Jobs
from threshold_search.ray_connection import (
    LOOPBACK,
    ON_LOOPBACK,
    PATIENT,
    QUIET,
    STORE_BYTES,
    is_loopback,
    options_of_every_driver,
    own_handlers,
    patient_start,
    require_answer,
)
from threshold_search.ray_nodes import RayNodes, own_node
from threshold_search.software import Software, own_software
from training.errors import OutOfMemory, UserError
from training.probe_types import Outcome, Probe
from training.spec import Architecture

if TYPE_CHECKING:
    from engines.engine import Engine

NO_RAY = "--executor ray needs Ray, which is not installed: pip install '.[ray]'"
IN_FLIGHT = 2  # jobs per CPU or GPU: the next one is there when one ends
OTHER_LOSSES_ALLOWED = 10  # with a node, or with a worker that had not begun
START_SECONDS = 600.0  # that a worker may take to begin, besides the deadline


@dataclass(frozen=True)
class _Begun:
    """What a node says before it trains a job: who it is, and why it must not, if it must not."""

    node: str
    difference: str | None


@functools.cache  # once in a process
def _prepare(driver: Software) -> tuple[str | None, UserError | OutOfMemory | None]:
    """Return how this process differs from the driver, and why it cannot train."""
    difference = own_software(driver.device).difference(driver)
    return difference, None if difference else start_worker()


def _serve(
    driver: Software, engine: Engine, job: list[Probe], then: NextProbe | None
) -> Iterator[_Begun | Answer]:
    """Train a job on a node: say that it begins, then how it ended."""
    difference, refusal = _prepare(driver)
    yield _Begun(own_node(), difference)
    if not difference:
        yield refusal or run_job(engine, job, then)


@dataclass
class _Flight:
    job: list[Probe]
    then: NextProbe | None
    until: float = math.inf  # its deadline by time.monotonic, once a worker may have it
    has_begun: bool = False


class RayWorkers:
    """Trains probes on the nodes of a Ray cluster; a context manager that lets go of it on exit."""

    def __init__(
        self,
        count: int | None,
        engines: Mapping[Architecture, Engine],
        deadline: float = DEADLINE_SECONDS,
        address: str | None = None,
    ) -> None:
        """Take how many jobs to train at once, on a cluster by default as many as it can.

        Without an ``address`` the cluster is started here and ends with this object. A job that
        takes more than ``deadline`` seconds is taken for lost.
        """
        self._count, self._engines = count, engines
        self._deadline, self._address = deadline, address
        on_gpu = any(engine.device == "cuda" for engine in engines.values())
        self._resource = "GPU" if on_gpu else "CPU"
        self._software = own_software("cuda" if on_gpu else "cpu")
        self._ray: Any = None  # the module, once it is needed
        self._remote: Any = None  # _serve as Ray has it: made once, because each is stored anew
        self._is_connected_here = False  # or by whoever uses this class in a program of theirs
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._nodes: RayNodes | None = None  # of the cluster, once there is one
        self._flights: dict[Any, _Flight] = {}  # by Ray's reference, oldest first
        self._jobs = Jobs()

    def __enter__(self) -> Self:
        """Start nothing yet: Ray starts when there is something to train."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Leave the cluster, or end it if it is ours; what is being trained is lost."""
        for reference in self._flights:
            self._ray.cancel(reference, force=True)
        self._flights.clear()
        if self._is_connected_here:
            self._ray.shutdown()
            self._is_connected_here = False
        self._ray = self._nodes = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    @property
    def has_idle(self) -> bool:
        """Whether a job may be submitted now."""
        most = IN_FLIGHT * max(1, self._start().places)  # one that waits makes a cluster grow
        if self._address is not None and self._count is not None:
            most = min(most, self._count)
        return len(self._flights) < most

    @property
    def has_spare(self) -> bool:
        """Whether it would start at once, instead of standing behind another one."""
        return self.has_idle and len(self._flights) < self._start().places

    def nodes(self) -> list[dict[str, object]]:
        """Return the processor of every node that trains, and how many jobs at once."""
        return list(self._start().facts.values())

    def largest_job(self, architecture: Architecture) -> int:
        """Return how many probes of ``architecture`` make a job at most."""
        return self._engines[architecture].largest_job

    def submit(self, job: list[Probe], then: NextProbe | None = None) -> None:
        """Start a job on the cluster, and with it, while probes are quick, what comes ``then``."""
        nodes = self._start()
        options: dict[str, Any] = {"num_cpus": 1, "max_retries": 0, "num_returns": "streaming"}
        # Nothing trains before wait has heard that it begins: not even what kills its worker.
        options["_generator_backpressure_num_objects"] = 1
        options[f"num_{self._resource.lower()}s"] = 1
        if nodes.refused:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(nodes.refused)})"}
        engine = self._engines[job[0].architecture]
        remote = self._remote.options(**options)
        self._flights[remote.remote(self._software, engine, job, then)] = _Flight(job, then)

    def cancel(self, probe: Probe) -> None:
        """End the job that ``probe`` is in, and the worker that trains it."""
        for reference in [r for r, flight in self._flights.items() if probe in flight.job]:
            del self._flights[reference]
            self._ray.cancel(reference, force=True)

    def wait(self, timeout: float) -> list[tuple[Probe, Outcome | OutOfMemory]]:
        """See :class:`~threshold_search.executor.Executor`."""
        streams = list(self._flights)
        if not streams and not self._jobs.has_ended:
            time.sleep(timeout)
        elif streams and self._ray.wait(streams, timeout=timeout)[0]:
            # All that have something to say by now, in one batch.
            ready, _ = self._ray.wait(streams, num_returns=len(streams), timeout=0)
            for stream in ready:
                self._take(stream)
        self._start().look()
        self._end_late()
        return self._jobs.hand_over()

    def _take(self, stream: Any) -> None:
        """Take what a job has to say: that it begins, how it ended, or nothing but an error."""
        flight = self._flights[stream]
        errors = self._ray.exceptions
        try:
            reply: _Begun | Answer = self._ray.get(next(stream))
        except errors.RayTaskError as error:  # it could not even begin there
            reason = str(error).strip().splitlines()[-1]
            reply = UserError(f"a node cannot run the project: {reason}")
        except errors.RayError as error:
            del self._flights[stream]
            # The node is lost, or the worker before the job began: seldom the job's fault.
            is_own = flight.has_begun and not isinstance(error, errors.NodeDiedError)
            allowed = LOSSES_ALLOWED if is_own else OTHER_LOSSES_ALLOWED
            self._lose(flight, type(error).__name__, allowed)
            return
        if not isinstance(reply, _Begun):
            del self._flights[stream]
            self._jobs.take(flight.job, reply)
        elif reply.difference:
            del self._flights[stream]
            self._start().refuse(reply.node, reply.difference)
            self.submit(flight.job, flight.then)
        else:
            flight.has_begun, flight.until = True, time.monotonic() + self._deadline

    def _lose(self, flight: _Flight, how: str, allowed: int = LOSSES_ALLOWED) -> None:
        if not self._jobs.is_lost_for_good(flight.job, how, allowed):
            # Alone: one of those that came then may have been what killed it, and is to be blamed.
            self.submit(flight.job)

    def _end_late(self) -> None:
        """Let go of jobs beyond their deadline.

        When a worker gets a queued job is not known here. As many of the oldest as there are places
        can have one, which may take long to start.
        """
        now = time.monotonic()
        for stream, flight in list(self._flights.items())[: max(1, self._start().places)]:
            flight.until = min(flight.until, now + START_SECONDS + self._deadline)
            if flight.until < now:
                del self._flights[stream]
                self._ray.cancel(stream, force=True)
                self._lose(flight, "took longer than the deadline")

    # The cluster.

    def _start(self) -> RayNodes:
        """Return the nodes; at first connect to the cluster, or start one.

        A program that is connected already, a notebook say, stays so.
        """
        if self._nodes is not None:
            return self._nodes
        if self._address not in (None, "auto"):
            require_answer(self._address or "")
        is_here = self._address is None or is_loopback(self._address)
        os.environ |= QUIET | ON_LOOPBACK | PATIENT if is_here else QUIET
        with own_handlers():
            try:
                import ray
            except ImportError:
                raise UserError(NO_RAY) from None
            self._ray, self._remote = ray, ray.remote(_serve)
            if not ray.is_initialized():
                self._connect(ray)
        may_grow = self._address is not None
        self._nodes = RayNodes(ray, self._resource, self._software, may_grow)
        self._nodes.await_first()
        return self._nodes

    def _connect(self, ray: Any) -> None:
        self._is_connected_here = True
        try:
            with patient_start():
                ray.init(**self._arguments(), **options_of_every_driver())
        except Exception as error:  # Ray raises plain ones too, of a start that takes too long
            reason = str(error).strip().partition("\n")[0]
            raise UserError(f"Ray at {self._address or 'this machine'}: {reason}") from None

    def _arguments(self) -> dict[str, Any]:
        """Return what to give ``ray.init``."""
        if self._address is not None:
            return {"address": self._address}
        self._folder = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
        gpus = _own_gpus() if self._resource == "GPU" else 0
        return {
            "address": "local",
            # One per job, whatever trains it: Ray may find fewer than there are GPUs.
            "num_cpus": self._count or gpus or usable_cpus(),
            "num_gpus": gpus,
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
            "_node_ip_address": LOOPBACK,
            "_temp_dir": self._folder.name,
        }


def _own_gpus() -> int:
    import torch

    return torch.cuda.device_count()
