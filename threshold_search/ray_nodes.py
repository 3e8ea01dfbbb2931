"""The nodes of a Ray cluster: each says what software it has before it gets jobs. No torch."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from typing import Any

from engines.cpu import cpu_name
from threshold_search.software import Software, own_software
from training.errors import UserError

NODES_SECONDS = 1.0  # how old the list of the nodes may be
GREETING_SECONDS = 120.0  # a node that has not answered by then is left out
FIRST_SECONDS = 10.0  # what the first job waits for others when a node has answered
GROWTH_SECONDS = 300.0  # a cluster may get its first node for jobs within


@dataclass(frozen=True)
class Greeting:
    """What a node answers: how it differs from the driver, if it does, and its processor."""

    difference: str | None
    cpu: str | None = None


def greet(driver: Software) -> Greeting:
    """Answer from a node."""
    return Greeting(own_software(driver.device).difference(driver), cpu_name())


def own_node() -> str:
    """Return Ray's id of the node that this process is on."""
    import ray

    return str(ray.get_runtime_context().get_node_id())


class RayNodes:
    """Which nodes may train; nothing waits for one that is slow to answer."""

    def __init__(self, ray: Any, resource: str, software: Software, may_grow: bool) -> None:
        """Take the module, what a job needs one of besides a CPU, and the driver's software.

        A cluster that ``may_grow`` is given time to get a node that can run jobs at all.
        """
        self._ray, self._resource, self._software = ray, resource, software
        self._may_grow = may_grow
        self.facts: dict[str, dict[str, Any]] = {}  # of what may train, by Ray's id
        self.refused: dict[str, str] = {}  # why not, by Ray's id
        self.places = 0  # jobs that the nodes train at once
        self._asked: dict[str, tuple[Any, float]] = {}  # the answer to come, and until when
        self._looked = -math.inf
        self._hopeless_since: float | None = None

    def await_first(self) -> None:
        """Wait until nodes have answered: all of them, or those of :data:`FIRST_SECONDS`."""
        begin = time.monotonic()
        self.look()
        while self._asked and not (self.facts and time.monotonic() - begin > FIRST_SECONDS):
            self._ray.wait([reference for reference, _ in self._asked.values()], timeout=0.5)
            self._looked = -math.inf
            self.look()

    def look(self) -> None:
        """Ask new nodes who they are, take what has been answered, forget those that are gone.

        Raises :class:`UserError` if no node can train, or none differs in nothing.
        """
        if time.monotonic() - self._looked < NODES_SECONDS:
            return
        able = self._able()
        for node in able:
            if node not in self.facts and node not in self.refused and node not in self._asked:
                self._ask(node)
        self._asked = {node: asked for node, asked in self._asked.items() if node in able}
        for node in list(self._asked):
            greeting = self._answer_of(node)
            if greeting is None:
                continue
            address, jobs = able[node]
            if greeting.difference:
                self.refuse(node, greeting.difference, address)
            else:
                self.facts[node] = {"cpu": greeting.cpu, "jobs": jobs}
        self.facts = {node: facts for node, facts in self.facts.items() if node in able}
        self.places = sum(facts["jobs"] for facts in self.facts.values())
        self._looked = time.monotonic()
        if able and able.keys() <= self.refused.keys():
            raise UserError(
                "no node of the Ray cluster can train: "
                + "; ".join(dict.fromkeys(self.refused.values()))
            )
        self._require_nodes(bool(able))

    def refuse(self, node: str, difference: str, address: str = "") -> None:
        """Leave a node out from now on, with a line on stderr."""
        if node not in self.refused:
            self.refused[node] = difference
            self.facts.pop(node, None)
            print(
                f"note: node {address or node[:8]} is left out, its bits could differ: "
                f"{difference}",
                file=sys.stderr,
            )

    def _able(self) -> dict[str, tuple[str, int]]:
        """Return the address of every node that can run jobs, and how many at once, by its id."""
        able = {}
        for node in self._ray.nodes():
            has = node["Resources"]
            jobs = int(min(has.get("CPU", 0), has.get(self._resource, 0)))
            if node["Alive"] and jobs > 0:
                able[node["NodeID"]] = node["NodeManagerAddress"], jobs
        return able

    def _require_nodes(self, has_any: bool) -> None:
        """Raise UserError once there has been no node for jobs for as long as one may take."""
        if has_any:
            self._hopeless_since = None
            return
        needs = " and a ".join(dict.fromkeys(["CPU", self._resource]))
        if not self._may_grow:
            raise UserError(f"Ray finds no {needs} on this machine")
        now = time.monotonic()
        if self._hopeless_since is None:
            self._hopeless_since = now
            print(
                f"note: no node of the Ray cluster has a {needs} for jobs; waiting "
                f"{GROWTH_SECONDS:.0f} seconds for one",
                file=sys.stderr,
            )
        elif now - self._hopeless_since > GROWTH_SECONDS:
            raise UserError(f"no node of the Ray cluster has a {needs} for jobs")

    def _ask(self, node: str) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node, soft=False)
        remote = self._ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(greet)
        self._asked[node] = remote.remote(self._software), time.monotonic() + GREETING_SECONDS

    def _answer_of(self, node: str) -> Greeting | None:
        """Return what a node has answered, or None for not yet; it is asked again if it was lost.

        One that cannot run the project, or does not answer in time, differs from the driver.
        """
        reference, until = self._asked[node]
        errors = self._ray.exceptions
        try:
            greeting: Greeting = self._ray.get(reference, timeout=0)
        except errors.GetTimeoutError:
            if time.monotonic() < until:
                return None
            greeting = Greeting(f"no answer in {GREETING_SECONDS:.0f} seconds")
        except errors.RayTaskError as error:
            greeting = Greeting(str(error).strip().splitlines()[-1])
        except errors.RayError:  # lost with its node, or its worker
            del self._asked[node]
            return None
        del self._asked[node]
        return greeting
