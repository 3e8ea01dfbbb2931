"""Ray: a remote call per pack of jobs, on the CPUs or GPUs of this machine or of a cluster.

Only this process, the driver, knows what is to be done and writes. Where a call runs, and that it
runs again when a worker or a node is lost, is Ray's. Ray is an optional extra, imported when the
first job starts. Imports no torch.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from threshold_search.executors.executor import (
    DEADLINE_SECONDS,
    LOSSES_ALLOWED,
    Answer,
    Executor,
    run_job,
    start_worker,
)
from threshold_search.executors.ray_connection import connection, in_one_line, require_answer
from threshold_search.executors.software import Software, own_software
from training.errors import OutOfMemory, UserError
from training.probe import Kind, Outcome, Probe

if TYPE_CHECKING:
    from engines.engine import Engine

IN_FLIGHT = 2  # calls per CPU or GPU: the next one is there when one ends
PACK_SECONDS = 5.0  # of work that is expected of a call with several jobs
QUICK_SECONDS = 1.0  # a probe that takes longer is worth a call of its own
LARGEST_PACK = 100  # jobs, however quick
NODES_SECONDS = 1.0  # how old the list of the nodes may be
LONGEST_SECONDS = 1e9  # that a deadline can be


def serve(
    driver: Software, deadline: float, jobs: list[tuple[Engine, list[Probe]]]
) -> list[Answer]:
    """Train jobs on a node, one after another; return the answers of those that were trained.

    After :data:`PACK_SECONDS` no further one begins: so much may be lost with a worker. A job that
    takes more than ``deadline`` seconds ends this process.
    """
    answers: list[Answer] = []
    begin = time.monotonic()
    for engine, job in jobs:
        if answers and time.monotonic() - begin > PACK_SECONDS:
            break
        refusal = _refusal(driver)
        # Not by the driver, which does not know when a call that waits for room begins.
        faulthandler.dump_traceback_later(min(deadline, LONGEST_SECONDS), exit=True, file=2)
        answers.append(refusal or run_job(engine, job))
        faulthandler.cancel_dump_traceback_later()
    return answers


@functools.cache  # once in a process
def _refusal(driver: Software) -> UserError | None:
    """Return why this process must not train: its bits could differ, or it cannot."""
    if difference := own_software(driver.device).difference(driver):
        import ray

        address = ray.util.get_node_ip_address()
        return UserError(
            f"node {address} of the Ray cluster cannot be used, its bits could differ: {difference}"
        )
    return start_worker()


class RayWorkers(Executor):
    """Trains probes on the nodes of a Ray cluster; a context manager that lets go of it on exit."""

    def __init__(
        self,
        count: int | None,
        engines: Mapping[Kind, Engine],
        deadline: float = DEADLINE_SECONDS,
        address: str | None = None,
    ) -> None:
        """Take how many calls to have at once, on a cluster by default twice what it has room for.

        Without an ``address`` the cluster is started here, of ``count`` CPUs, and ends with this
        object.
        """
        super().__init__(engines, deadline)
        self._count, self._address = count, address
        self._on_gpu = any(engine.device == "cuda" for engine in engines.values())
        self._software = own_software("cuda" if self._on_gpu else "cpu")
        self._ray: Any = None  # the module, once it is needed
        self._remote: Any = None  # serve as Ray has it: made once, because each is stored anew
        self._is_own = False  # whether the cluster was started here
        self._undo = contextlib.ExitStack()  # of being connected
        self._nodes: list[tuple[str, int]] = []  # address, and calls that run there at once
        self._looked = 0.0  # when at the nodes, by time.monotonic
        self._queue: deque[list[Probe]] = deque()  # jobs that no call has yet
        self._queued_seconds = 0.0  # what is expected of them
        self._seconds: dict[Kind, float] = {}  # of the slowest probe of the last job
        self._calls: dict[Any, list[list[Probe]]] = {}  # the jobs, by Ray's reference

    def close(self) -> None:
        """Leave the cluster, or end it if it is ours; what is being trained is lost."""
        for call in self._calls:
            with contextlib.suppress(self._ray.exceptions.RayError):  # the cluster may be gone
                self._ray.cancel(call, force=True)
        self._calls.clear()
        self._queue.clear()
        self._undo.close()
        self._ray = None

    @property
    def has_idle(self) -> bool:
        """Whether a job may be submitted now: until the calls that may be made are full."""
        return self._queued_seconds < self._free_calls() * PACK_SECONDS

    def nodes(self) -> list[dict[str, object]]:
        """Return the address of every node that trains, and how many jobs at once."""
        self._start()
        return [{"node": address, "jobs": jobs} for address, jobs in self._nodes]

    def submit(self, job: list[Probe]) -> None:
        """Put a job into the queue, which the next ``wait`` hands to Ray."""
        self._queue.append(job)
        self._queued_seconds += self._expected(job)

    def wait(self, timeout: float) -> list[tuple[Probe, Outcome | OutOfMemory]]:
        """See :class:`~threshold_search.executors.executor.Executor`."""
        if self._failure is None:  # else others might end again and again
            self._hand_out()
            for call in self._ended(timeout):
                self._take(call)
            if self._ray is not None:
                self._look()
        return self._hand_over()

    def _expected(self, job: list[Probe]) -> float:
        """Return the seconds of a job; where nothing is known or they are many, a pack's."""
        seconds = self._seconds.get(job[0].kind, PACK_SECONDS)
        if seconds > QUICK_SECONDS:
            return PACK_SECONDS
        return max(seconds * len(job), PACK_SECONDS / LARGEST_PACK)

    def _free_calls(self) -> int:
        self._start()
        places = sum(jobs for _, jobs in self._nodes)
        most = IN_FLIGHT * max(1, places)  # a call that waits makes a cluster grow
        if self._count is not None and not self._is_own:
            most = min(most, self._count)
        return most - len(self._calls)

    def _hand_out(self) -> None:
        """Make calls of the queue: as many as may be, of equal length, none longer than a pack."""
        waiting = sum(map(self._expected, self._queue))
        for free in range(self._free_calls() if self._queue else 0, 0, -1):
            if not self._queue:
                break
            share = min(waiting / free, PACK_SECONDS)
            pack = [self._queue.popleft()]
            seconds = self._expected(pack[0])
            while self._queue and seconds + self._expected(self._queue[0]) <= share:
                pack.append(self._queue.popleft())
                seconds += self._expected(pack[-1])
            waiting -= seconds
            self._call(pack)
        self._queued_seconds = waiting

    def _call(self, pack: list[list[Probe]]) -> None:
        jobs = [(self._engines[job[0].kind], job) for job in pack]
        self._calls[self._remote.remote(self._software, self._deadline, jobs)] = pack

    def _ended(self, timeout: float) -> list[Any]:
        """Return all calls that have ended, within ``timeout`` seconds, in one batch."""
        calls = list(self._calls)
        if not calls:
            time.sleep(timeout)
            return []
        # Ray goes over all of them each time: where much has ended it is asked once.
        ready, _ = self._ray.wait(calls, num_returns=len(calls), timeout=0)
        if not ready and self._ray.wait(calls, timeout=timeout)[0]:
            ready, _ = self._ray.wait(calls, num_returns=len(calls), timeout=0)
        return list(ready)

    def _take(self, call: Any) -> None:
        """Take the answers of a call; what it has not begun goes back into the queue."""
        pack, errors = self._calls.pop(call), self._ray.exceptions
        try:
            answers: list[Answer] = self._ray.get(call)
        except errors.RayTaskError as error:  # before any training: that answers in words
            reason = in_one_line(error)
            self._fail(UserError(f"a node of the Ray cluster cannot be used: {reason}"))
        except errors.RayError as error:
            self._lose(pack, type(error).__name__)
        else:
            for job, answer in zip(pack, answers, strict=False):
                if isinstance(answer, list):
                    self._seconds[job[0].kind] = max(outcome.seconds for _, outcome in answer)
                self._end(job, answer)
            self._queue.extendleft(reversed(pack[len(answers) :]))

    def _lose(self, pack: list[list[Probe]], how: str) -> None:
        """Take note that a call was lost as often as Ray repeats it."""
        if not self._look(at_once=True):
            return
        if len(pack) > 1:  # one of the jobs may be to blame, and is to be found
            for job in pack:
                self._call([job])
        else:
            how += "; a job beyond --deadline ends its worker too"
            self._give_up(pack[0], how)

    # The cluster.

    def _start(self) -> None:
        """Connect to the cluster, or start one, at the first call."""
        if self._ray is not None:
            return
        found = self._undo.enter_context(connection(self._address, self._count, self._on_gpu))
        self._ray, self._is_own = found
        self._remote = self._ray.remote(
            num_cpus=1, num_gpus=int(self._on_gpu), max_retries=LOSSES_ALLOWED - 1
        )(serve)
        self._look(at_once=True)
        if not self._nodes:
            what = "CPU and a GPU" if self._on_gpu else "CPU"
            print(f"note: no node of Ray has a {what} for jobs; waiting for one", file=sys.stderr)

    def _look(self, at_once: bool = False) -> bool:
        """See which nodes there are; return False once what is wrong will be raised by ``wait``.

        Does nothing if it did so a moment ago, unless ``at_once``.
        """
        if time.monotonic() - self._looked < NODES_SECONDS and not at_once:
            return True
        try:
            # Where its head is gone, Ray would wait for it, and after a minute end this process.
            require_answer(self._ray.get_runtime_context().gcs_address)
            nodes = self._ray.nodes()
        except (UserError, self._ray.exceptions.RayError) as error:
            self._fail(UserError(f"the Ray cluster is gone: {in_one_line(error)}"))
            return False
        self._looked = time.monotonic()
        needed = ("CPU", "GPU") if self._on_gpu else ("CPU",)
        able = [(n["NodeManagerAddress"], n["Resources"]) for n in nodes if n["Alive"]]
        jobs = [(where, int(min(has.get(name, 0) for name in needed))) for where, has in able]
        self._nodes = [(where, count) for where, count in jobs if count]
        return True
