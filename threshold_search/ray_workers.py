"""Ray: a remote function per job, on the CPUs or GPUs of this machine or of a cluster.

Only this process, the driver, knows what is to be done and writes. Ray itself repeats nothing: what
a worker, a node or a memory limit took with it is submitted again from here. Ray is an optional
extra, imported when the first job starts. Imports no torch.
"""

from __future__ import annotations

import functools
import math
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from engines.cpu import cpu_name
from threshold_search.executor import DEADLINE_SECONDS, Answer, NextProbe, run_job, start_worker
from threshold_search.jobs import LOSSES_ALLOWED, Jobs
from threshold_search.ray_connection import (
    LOOPBACK,
    ON_LOOPBACK,
    QUIET,
    is_loopback,
    options_of_every_driver,
    own_handlers,
    require_answer,
)
from threshold_search.software import Software, own_software
from training.errors import OutOfMemory, UserError
from training.probe_types import Outcome, Probe
from training.spec import Architecture

if TYPE_CHECKING:
    from engines.engine import Engine

NO_RAY = "--executor ray needs Ray, which is not installed: pip install '.[ray]'"
IN_FLIGHT = 2  # jobs per CPU or GPU: the next one is there when one ends
NODE_LOSSES_ALLOWED = 10
NODES_SECONDS = 1.0  # how old the list of the nodes may be
GREETING_SECONDS = 120.0  # a node that has not answered by then is left out
STORE_BYTES = 80 * 2**20  # nothing large is stored, and it is the least that Ray takes


@dataclass(frozen=True)
class _Reply:
    """What a node returns: who it is, and the answer or why it must not train."""

    node: str
    answer: Answer | None = None
    difference: str | None = None
    cpu: str | None = None


@functools.cache  # once in a process
def _prepare(driver: Software) -> tuple[str | None, UserError | OutOfMemory | None]:
    """Return how this process differs from the driver, and why it cannot train."""
    difference = own_software().difference(driver)
    return difference, None if difference else start_worker()


def _greet(driver: Software) -> _Reply:
    """Answer from a node before it gets jobs."""
    difference = own_software().difference(driver)
    return _Reply(_own_node(), difference=difference, cpu=cpu_name())


def _serve(driver: Software, engine: Engine, job: list[Probe], then: NextProbe | None) -> _Reply:
    """Train a job on a node."""
    difference, refusal = _prepare(driver)
    if difference:
        return _Reply(_own_node(), difference=difference)
    return _Reply(_own_node(), refusal or run_job(engine, job, then))


def _own_node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


@dataclass
class _Flight:
    job: list[Probe]
    then: NextProbe | None
    until: float = math.inf  # its deadline by time.monotonic, once it may have started


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
        self._software = own_software()
        self._ray: Any = None  # the module, once it is needed
        self._remote: Any = None  # _serve as Ray has it: made once, because each is stored anew
        self._is_connected_here = False  # or by whoever uses this class in a program of theirs
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._nodes: dict[str, dict[str, Any]] = {}  # what has answered and may train, by Ray's id
        self._refused: dict[str, str] = {}  # why not, by Ray's id
        self._places = 0  # jobs that the nodes train at once
        self._looked = -math.inf
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
        self._ray = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    @property
    def has_idle(self) -> bool:
        """Whether a job may be submitted now."""
        self._start()
        most = IN_FLIGHT * max(1, self._places)  # one that waits makes a cluster grow
        if self._address is not None and self._count is not None:
            most = min(most, self._count)
        return len(self._flights) < most

    @property
    def has_spare(self) -> bool:
        """Whether it would start at once, instead of standing behind another one."""
        return self.has_idle and len(self._flights) < self._places

    @property
    def running(self) -> list[Probe]:
        """The probes being trained, or waiting for it on the cluster."""
        return self._jobs.ended + [p for flight in self._flights.values() for p in flight.job]

    def nodes(self) -> list[dict[str, object]]:
        """Return the processor of every node that trains, and how many jobs at once."""
        self._start()
        return list(self._nodes.values())

    def largest_job(self, architecture: Architecture) -> int:
        """Return how many probes of ``architecture`` make a job at most."""
        return self._engines[architecture].largest_job

    def submit(self, job: list[Probe], then: NextProbe | None = None) -> None:
        """Start a job on the cluster, and with it, while probes are quick, what comes ``then``."""
        self._start()
        options: dict[str, Any] = {"num_cpus": 1, "max_retries": 0}
        options[f"num_{self._resource.lower()}s"] = 1
        if self._refused:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(self._refused)})"}
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
        references = list(self._flights)
        if not references and not self._jobs.ended:
            time.sleep(timeout)
        elif references and self._ray.wait(references, timeout=timeout)[0]:
            # All that have ended by now, in one batch.
            ready, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
            for reference in ready:
                self._take(reference)
        self._look_at_nodes()
        self._end_late()
        return self._jobs.hand_over()

    def _take(self, reference: Any) -> None:
        """Take what a job left: an answer, or nothing but an error."""
        flight = self._flights.pop(reference)
        errors = self._ray.exceptions
        try:
            reply: _Reply = self._ray.get(reference)
        except errors.RayTaskError as error:  # it could not even begin there
            reason = str(error).strip().splitlines()[-1]
            self._jobs.take(flight.job, UserError(f"a node cannot run the project: {reason}"))
        except errors.RayError as error:
            is_nodes = isinstance(error, errors.NodeDiedError)  # seldom the job's fault
            allowed = NODE_LOSSES_ALLOWED if is_nodes else LOSSES_ALLOWED
            self._lose(flight, type(error).__name__, allowed)
        else:
            if reply.difference:
                self._refuse(reply.node, reply.difference)
                self.submit(flight.job, flight.then)
            elif reply.answer is not None:
                self._jobs.take(flight.job, reply.answer)

    def _lose(self, flight: _Flight, how: str, allowed: int = LOSSES_ALLOWED) -> None:
        if not self._jobs.is_lost_for_good(flight.job, how, allowed):
            # Alone: one of those that came then may have been what killed it, and is to be blamed.
            self.submit(flight.job)

    def _end_late(self) -> None:
        """Let go of jobs beyond their deadline.

        When a queued job starts is not known here. As many of the oldest as there are places can
        have started.
        """
        now = time.monotonic()
        for reference, flight in list(self._flights.items())[: max(1, self._places)]:
            flight.until = min(flight.until, now + self._deadline)
            if flight.until < now:
                del self._flights[reference]
                self._ray.cancel(reference, force=True)
                self._lose(flight, "took longer than --deadline")

    # The cluster.

    def _start(self) -> None:
        """Connect to the cluster, or start one; ask its nodes who they are.

        A program that is connected already, a notebook say, stays so.
        """
        if self._ray is not None:
            return
        if self._address not in (None, "auto"):
            require_answer(self._address or "")
        is_here = self._address is None or is_loopback(self._address)
        os.environ |= QUIET | ON_LOOPBACK if is_here else QUIET
        with own_handlers():
            try:
                import ray
            except ImportError:
                raise UserError(NO_RAY) from None
            self._ray, self._remote = ray, ray.remote(_serve)
            if ray.is_initialized():
                self._look_at_nodes()
                return
            self._is_connected_here = True
            try:
                ray.init(**self._arguments(), **options_of_every_driver())
            except Exception as error:  # Ray raises plain ones too, of a start that takes too long
                reason = str(error).strip().partition("\n")[0]
                raise UserError(f"Ray at {self._address or 'this machine'}: {reason}") from None
        self._look_at_nodes()

    def _arguments(self) -> dict[str, Any]:
        """Return what to give ``ray.init``."""
        if self._address is not None:
            return {"address": self._address}
        self._folder = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
        return {
            "address": "local",
            "num_cpus": self._count,
            "include_dashboard": False,
            "object_store_memory": STORE_BYTES,
            "_node_ip_address": LOOPBACK,
            "_temp_dir": self._folder.name,
        }

    def _look_at_nodes(self) -> None:
        """Ask new nodes who they are; forget those that are gone. Raises UserError for none."""
        if time.monotonic() - self._looked < NODES_SECONDS:
            return
        alive = {n["NodeID"]: n for n in self._ray.nodes() if n["Alive"]}
        able = {i: n for i, n in alive.items() if n["Resources"].get(self._resource)}
        new = [i for i in able if i not in self._nodes and i not in self._refused]
        for node, reply in zip(new, self._greetings(new), strict=True):
            if reply is None:
                continue
            if reply.difference:
                self._refuse(node, reply.difference, able[node]["NodeManagerAddress"])
            else:
                jobs = int(able[node]["Resources"][self._resource])
                self._nodes[node] = {"cpu": reply.cpu, "jobs": jobs}
        self._nodes = {i: facts for i, facts in self._nodes.items() if i in able}
        self._places = sum(facts["jobs"] for facts in self._nodes.values())
        self._looked = time.monotonic()
        if able and able.keys() <= self._refused.keys():
            raise UserError(
                "no node of the Ray cluster can train: "
                + "; ".join(dict.fromkeys(self._refused.values()))
            )

    def _greetings(self, nodes: list[str]) -> Iterator[_Reply | None]:
        """Yield what each of ``nodes`` answers, None for one that has gone or is to be asked again.

        One that cannot run the project, or does not answer in time, differs from the driver.
        """
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        asked = [
            self._ray.remote(
                num_cpus=0,
                max_retries=0,
                scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False),
            )(_greet).remote(self._software)
            for node in nodes
        ]
        until = time.monotonic() + GREETING_SECONDS
        for node, reference in zip(nodes, asked, strict=True):
            try:
                yield self._ray.get(reference, timeout=max(0.0, until - time.monotonic()))
            except self._ray.exceptions.GetTimeoutError:
                yield _Reply(node, difference=f"no answer in {GREETING_SECONDS:.0f} seconds")
            except self._ray.exceptions.RayTaskError as error:
                yield _Reply(node, difference=str(error).strip().splitlines()[-1])
            except self._ray.exceptions.RayError:  # lost with its node, or its worker
                yield None

    def _refuse(self, node: str, difference: str, address: str = "") -> None:
        if node not in self._refused:
            self._refused[node] = difference
            self._nodes.pop(node, None)
            print(
                f"note: node {address or node[:8]} is left out, its bits could differ: "
                f"{difference}",
                file=sys.stderr,
            )
