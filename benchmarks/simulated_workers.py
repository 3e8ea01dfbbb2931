"""An executor without training: workers in a time of their own, on nodes that fail."""

from __future__ import annotations

import heapq
import itertools
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from threshold_search.executors.executor import NextProbe
from training.errors import OutOfMemory
from training.probe import Outcome, Probe
from training.spec import Architecture

WORKERS_PER_NODE = 16
REPAIR_SECONDS = 600.0  # from a node's failure until it is back


@dataclass
class _Node:
    workers: int
    jobs: dict[Probe, int] = field(default_factory=dict)  # with the number of their event
    is_up: bool = True


class SimulatedWorkers:
    """``count`` workers, one probe each; a probe ends after the seconds of its outcome.

    Every node fails after times that are exponential, ``failures`` times per hour in the mean: what
    its workers train is lost and starts again, before anything else, on those that are left. As in
    :class:`~threshold_search.executors.executor.Executor`, the driver sees none of it.

    ``now`` is in simulated seconds, ``own_seconds`` the CPU time that the simulation itself took.
    """

    def __init__(
        self,
        count: int,
        answer: Callable[[Probe], Outcome],
        failures: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.now = self.own_seconds = 0.0
        self.trained: list[Probe] = []
        self.lost = 0
        self._answer, self._failures = answer, failures
        self._random = random.Random(f"nodes {seed}")
        sizes = [WORKERS_PER_NODE] * (count // WORKERS_PER_NODE) + [count % WORKERS_PER_NODE]
        self._nodes = [_Node(size) for size in sizes if size]
        self._node_of: dict[Probe, _Node] = {}
        self._free = [node for node in self._nodes for _ in range(node.workers)]
        self._backlog: deque[Probe] = deque()  # lost, and not started again yet
        self._serial = itertools.count()
        # (time, number, what ends: a probe; or the node that fails or comes back)
        self._events: list[tuple[float, int, Probe | _Node]] = []
        for node in self._nodes if failures else ():
            self._break_later(node)

    def __enter__(self) -> Self:
        """Nothing is started."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Nothing is left."""

    @property
    def has_idle(self) -> bool:
        """Whether a worker is free and no lost job waits for one."""
        return bool(self._free) and not self._backlog

    has_spare = has_idle

    def largest_job(self, architecture: Architecture) -> int:
        """Return 1: probes train alone."""
        return 1

    def submit(self, job: list[Probe], then: NextProbe | None = None) -> None:
        """Start a job of one probe."""
        begin = time.process_time()
        self._start(*job)
        self.own_seconds += time.process_time() - begin

    def cancel(self, probe: Probe) -> None:
        """Stop training ``probe``."""
        if probe in self._backlog:
            self._backlog.remove(probe)
        else:
            self._release(probe)

    def wait(self, timeout: float) -> list[tuple[Probe, Outcome | OutOfMemory]]:
        """Return the next probe that ends, at once; the simulated time moves on to its end."""
        begin = time.process_time()
        while True:
            self.now, number, ended = heapq.heappop(self._events)
            if isinstance(ended, _Node):
                self._fail_or_repair(ended)
            elif (node := self._node_of.get(ended)) and node.jobs[ended] == number:
                self._release(ended)
                self.trained.append(ended)
                self.own_seconds += time.process_time() - begin
                return [(ended, self._answer(ended))]

    def _start(self, probe: Probe) -> None:
        node, number = self._free.pop(), next(self._serial)
        node.jobs[probe] = number
        self._node_of[probe] = node
        heapq.heappush(self._events, (self.now + self._answer(probe).seconds, number, probe))

    def _release(self, probe: Probe) -> None:
        node = self._node_of.pop(probe)
        del node.jobs[probe]
        self._free.append(node)
        self._start_lost()

    def _start_lost(self) -> None:
        while self._backlog and self._free:
            self._start(self._backlog.popleft())

    def _break_later(self, node: _Node) -> None:
        until = self._random.expovariate(self._failures / 3600)
        heapq.heappush(self._events, (self.now + until, next(self._serial), node))

    def _fail_or_repair(self, node: _Node) -> None:
        if node.is_up:
            self.lost += len(node.jobs)
            self._backlog.extend(node.jobs)
            for probe in node.jobs:
                del self._node_of[probe]
            node.jobs.clear()
            self._free = [other for other in self._free if other is not node]
            back = self.now + REPAIR_SECONDS
            heapq.heappush(self._events, (back, next(self._serial), node))
        else:
            self._free += [node] * node.workers
            self._break_later(node)
        node.is_up = not node.is_up
        self._start_lost()
