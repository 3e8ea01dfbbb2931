"""Ray: a remote function per job, on the CPUs or GPUs of this machine or of a cluster.

Only this process, the driver, knows what is to be done and writes. Ray itself repeats nothing: what
a worker, a node or a memory limit took with it is submitted again from here. Ray is an optional
extra, imported when the first job starts. Imports no torch.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from engines.cpu import usable_cpus
from threshold_search.executors.executor import DEADLINE_SECONDS, Answer
from threshold_search.executors.jobs import Jobs
from threshold_search.executors.ray_connection import (
    LOOPBACK,
    ON_LOOPBACK,
    PATIENT,
    QUIET,
    STORE_BYTES,
    environment,
    is_loopback,
    options_of_every_driver,
    own_handlers,
    patient_start,
    require_answer,
)
from threshold_search.executors.ray_job import Begun, serve
from threshold_search.executors.ray_nodes import RayNodes
from threshold_search.executors.software import own_software
from training.errors import OutOfMemory, UserError
from training.probe import Kind, Outcome, Probe

if TYPE_CHECKING:
    from engines.engine import Engine

NO_RAY = "--executor ray needs Ray, which is not installed: pip install '.[ray]'"
IN_FLIGHT = 2  # jobs per CPU or GPU: the next one is there when one ends


@dataclass
class _Flight:
    job: list[Probe]
    unfit: frozenset[str]  # the nodes that it may not go to
    since: float  # by time.monotonic: when it was submitted, or began
    has_begun: bool = False


class RayWorkers:
    """Trains probes on the nodes of a Ray cluster; a context manager that lets go of it on exit."""

    def __init__(
        self,
        count: int | None,
        engines: Mapping[Kind, Engine],
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
        self._remote: Any = None  # serve as Ray has it: made once, because each is stored anew
        self._is_own = False  # whether the cluster was started here
        self._undo = contextlib.ExitStack()  # what was done to be connected
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
            with contextlib.suppress(self._ray.exceptions.RayError):  # the cluster may be gone
                self._ray.cancel(reference, force=True)
        self._flights.clear()
        self._undo.close()
        self._ray = self._nodes = None
        self._is_own = False

    @property
    def has_idle(self) -> bool:
        """Whether a job may be submitted now."""
        most = IN_FLIGHT * max(1, self._start().places)  # one that waits makes a cluster grow
        if self._count is not None and not self._is_own:
            most = min(most, self._count)
        return len(self._flights) < most

    def nodes(self) -> list[dict[str, object]]:
        """Return the processor of every node that trains, and how many jobs at once."""
        return list(self._start().facts.values())

    def largest_job(self, kind: Kind) -> int:
        """Return how many probes of one ``kind`` make a job at most."""
        return self._engines[kind].largest_job

    def submit(self, job: list[Probe]) -> None:
        """Start a job on the cluster."""
        nodes = self._start()
        options: dict[str, Any] = {"num_cpus": 1, "max_retries": 0, "num_returns": "streaming"}
        # Nothing trains before wait has heard that it begins: not even what kills its worker.
        options["_generator_backpressure_num_objects"] = 1
        options[f"num_{self._resource.lower()}s"] = 1
        # To no node that has not answered well. One that joins now may get it, and says in Begun
        # what it has: so a job that waits makes a cluster grow.
        unfit = nodes.unfit
        if unfit:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(unfit))})"}
        engine = self._engines[job[0].kind]
        remote = self._remote.options(**options)
        stream = remote.remote(self._software, engine, job)
        self._flights[stream] = _Flight(job, unfit, time.monotonic())

    def wait(self, timeout: float) -> list[tuple[Probe, Outcome | OutOfMemory]]:
        """See :class:`~threshold_search.executors.executor.Executor`."""
        for stream in self._ready(timeout):
            if stream in self._flights:  # and not ended by what another one said
                self._take(stream)
        self._look()
        self._move_stranded()
        self._end_late()
        return self._jobs.hand_over()

    def _ready(self, timeout: float) -> list[Any]:
        """Return all jobs that have something to say, within ``timeout`` seconds, in one batch."""
        streams = list(self._flights)
        if not streams:
            if not self._jobs.has_ended:
                time.sleep(timeout)
            return []
        # Ray goes over all of them each time: where there is much to say it is asked once.
        ready, _ = self._ray.wait(streams, num_returns=len(streams), timeout=0)
        if not ready and self._ray.wait(streams, timeout=timeout)[0]:
            ready, _ = self._ray.wait(streams, num_returns=len(streams), timeout=0)
        return list(ready)

    def _take(self, stream: Any) -> None:
        """Take what a job has to say: that it begins, how it ended, or nothing but an error."""
        flight = self._flights[stream]
        errors = self._ray.exceptions
        try:
            reply: Begun | Answer = self._ray.get(next(stream))
        except errors.RayTaskError as error:
            if not flight.has_begun:  # on a node that has just joined, and not answered yet
                self._look(at_once=True)
                self._lose(stream, str(error).strip().splitlines()[-1], is_own=False)
                return
            reply = str(error)
        except errors.RayError as error:
            # The node is lost, or the worker before the job began: seldom the job's fault.
            is_own = flight.has_begun and not isinstance(error, errors.NodeDiedError)
            self._lose(stream, type(error).__name__, is_own)
            return
        if not isinstance(reply, Begun):
            del self._flights[stream]
            self._jobs.take(flight.job, reply)
        elif reply.difference:
            del self._flights[stream]
            self._start().refuse(reply.node, f"its bits could differ: {reply.difference}")
            self.submit(flight.job)
        else:
            flight.has_begun, flight.since = True, time.monotonic()

    def _drop(self, stream: Any) -> _Flight:
        """End a job without an answer."""
        self._ray.cancel(stream, force=True)
        return self._flights.pop(stream)

    def _lose(self, stream: Any, how: str, is_own: bool) -> None:
        flight = self._flights.pop(stream)
        if not self._jobs.is_lost_for_good(flight.job, how, is_own):
            self.submit(flight.job)

    def _end_late(self) -> None:
        """Let go of jobs beyond their deadline. One that no worker has begun is never late."""
        before = time.monotonic() - self._deadline
        for stream, flight in list(self._flights.items()):
            if flight.has_begun and flight.since < before:
                self._ray.cancel(stream, force=True)
                self._lose(stream, "took longer than the deadline", is_own=True)

    def _move_stranded(self) -> None:
        """Submit again what may go to none of the nodes that train: they have answered later."""
        fit = self._start().facts.keys()
        for stream, flight in list(self._flights.items()):
            if not flight.has_begun and fit and fit <= flight.unfit:
                self._drop(stream)
                self.submit(flight.job)

    def _look(self, at_once: bool = False) -> None:
        """Look at the nodes; what is wrong is raised once what has ended was handed over."""
        try:
            self._start().look(at_once)
        except UserError as error:
            self._jobs.fail(error)

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
        variables = QUIET | ON_LOOPBACK | PATIENT if is_here else QUIET
        self._undo.enter_context(environment(variables))
        with own_handlers():
            try:
                import ray
            except ImportError:
                raise UserError(NO_RAY) from None
            self._ray, self._remote = ray, ray.remote(serve)
            if not ray.is_initialized():
                self._connect(ray)
        # An architecture may be of a module that a node lacks.
        needed = {architecture: engine for (architecture, _), engine in self._engines.items()}
        nodes = RayNodes(ray, self._resource, self._software, not self._is_own, needed)
        nodes.await_first()
        self._nodes = nodes
        return nodes

    def _connect(self, ray: Any) -> None:
        arguments = self._arguments()
        self._is_own = self._address is None
        self._undo.callback(ray.shutdown)
        try:
            with patient_start():
                ray.init(**arguments, **options_of_every_driver())
        except Exception as error:  # Ray raises plain ones too, of a start that takes too long
            reason = str(error).strip().partition("\n")[0]
            raise UserError(f"Ray at {self._address or 'this machine'}: {reason}") from None

    def _arguments(self) -> dict[str, Any]:
        """Return what to give ``ray.init``."""
        if self._address is not None:
            return {"address": self._address}
        folder = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
        gpus = _own_gpus() if self._resource == "GPU" else 0
        return {
            "address": "local",
            # One per job, whatever trains it: Ray may find fewer than there are GPUs.
            "num_cpus": self._count or gpus or usable_cpus(),
            "num_gpus": gpus,
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
            "_node_ip_address": LOOPBACK,
            "_temp_dir": self._undo.enter_context(folder),
        }


def _own_gpus() -> int:
    import torch

    return torch.cuda.device_count()
