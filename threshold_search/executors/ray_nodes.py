"""The nodes of a Ray cluster: each says what software it has before it gets jobs. No torch."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from typing import Any

from engines.cpu import cpu_name
from threshold_search.executors.software import Software, own_software
from training.errors import UserError

NODES_SECONDS = 1.0  # how old the list of the nodes may be
SLOW_SECONDS = 120.0  # a node that has not answered by then is reported
LONGEST_PAUSE = 600.0  # seconds until a node whose greetings are lost is asked again
FIRST_SECONDS = 10.0  # what the first job waits for others when a node has answered
GROWTH_SECONDS = 300.0  # a cluster may get its first node for jobs within
SILENCE_SECONDS = 900.0  # longer than Ray tries to start a worker: one of the nodes must answer


@dataclass(frozen=True)
class Greeting:
    """What a node answers: how it differs from the driver, if it does, and its processor."""

    difference: str | None
    cpu: str | None = None


def greet(driver: Software, needed: object) -> Greeting:
    """Answer from a node, which has imported what is ``needed`` for jobs when it gets here."""
    return Greeting(own_software(driver.device).difference(driver), cpu_name())


@dataclass
class _Asked:
    """A node that has not answered yet."""

    since: float  # by time.monotonic, as the other times
    again: float  # when to ask it, if there is no answer to wait for
    answer: Any = None  # Ray's reference
    losses: int = 0
    is_reported: bool = False


class RayNodes:
    """Which nodes may train; nothing waits for one that is slow to answer."""

    def __init__(
        self, ray: Any, resource: str, software: Software, may_grow: bool, needed: object = None
    ) -> None:
        """Take the module, what a job needs one of besides a CPU, and the driver's software.

        A cluster that ``may_grow`` is given time to get a node that can run jobs at all. What is
        ``needed`` for jobs is sent to every node, to see whether it can import what that is of.
        """
        self._ray, self._resource, self._software = ray, resource, software
        self._may_grow, self._needed = may_grow, needed
        self.facts: dict[str, dict[str, Any]] = {}  # of what may train, by Ray's id
        self.refused: dict[str, str] = {}  # why not, by Ray's id
        self.unfit: frozenset[str] = frozenset()  # refused, or without an answer so far
        self.places = 0  # jobs that the nodes train at once
        self._asked: dict[str, _Asked] = {}
        self._greet: Any = None  # greet as Ray has it: made once, because each is stored anew
        self._looked = -math.inf
        self._hopeless: tuple[bool, float] | None = None  # has nodes for jobs, but no answer; since

    def await_first(self) -> None:
        """Wait until nodes have answered: all of them, or those of :data:`FIRST_SECONDS`."""
        begin = time.monotonic()
        self.look(at_once=True)
        while self._asked and not (self.facts and time.monotonic() - begin > FIRST_SECONDS):
            answers = [asked.answer for asked in self._asked.values() if asked.answer is not None]
            if answers:
                self._ray.wait(answers, timeout=0.5)
            else:
                time.sleep(0.05)
            self.look(at_once=True)

    def look(self, at_once: bool = False) -> None:
        """Ask new nodes who they are, take what has been answered, forget those that are gone.

        Does nothing if it did so a moment ago, unless ``at_once``. Raises :class:`UserError` if no
        node can train, none differs in nothing, none answers for long, or the cluster is gone.
        """
        now = time.monotonic()
        if now - self._looked < NODES_SECONDS and not at_once:
            return
        able = self._able()
        self._looked = now
        self.facts = {node: facts for node, facts in self.facts.items() if node in able}
        self._asked = {node: asked for node, asked in self._asked.items() if node in able}
        for node, (address, jobs) in able.items():
            if node not in self.facts and node not in self.refused:
                self._hear(node, address, jobs)
        self.places = sum(facts["jobs"] for facts in self.facts.values())
        self.unfit = frozenset(able.keys() - self.facts.keys())
        if able and able.keys() <= self.refused.keys():
            raise UserError(
                "no node of the Ray cluster can train: "
                + "; ".join(dict.fromkeys(self.refused.values()))
            )
        self._require_nodes(bool(able))

    def refuse(self, node: str, reason: str, address: str = "") -> None:
        """Leave a node out from now on, with a line on stderr."""
        if node not in self.refused:
            self.refused[node] = reason
            self.unfit |= {node}
            self.facts.pop(node, None)
            print(f"note: node {address or node[:8]} is left out, {reason}", file=sys.stderr)

    def _able(self) -> dict[str, tuple[str, int]]:
        """Return the address of every node that can run jobs, and how many at once, by its id."""
        able = {}
        try:
            nodes = self._ray.nodes()
        except self._ray.exceptions.RayError as error:
            reason = str(error).strip().partition("\n")[0]
            raise UserError(f"the Ray cluster answers no more: {reason}") from None
        for node in nodes:
            has = node["Resources"]
            jobs = int(min(has.get("CPU", 0), has.get(self._resource, 0)))
            if node["Alive"] and jobs > 0:
                able[node["NodeID"]] = node["NodeManagerAddress"], jobs
        return able

    def _require_nodes(self, has_any: bool) -> None:
        """Raise UserError once there has been no node to train for as long as one may take."""
        if self.facts:
            self._hopeless = None
            return
        needs = " and a ".join(dict.fromkeys(["CPU", self._resource]))
        if not has_any and not self._may_grow:
            raise UserError(f"Ray finds no {needs} on this machine")
        now = time.monotonic()
        if self._hopeless is None or self._hopeless[0] != has_any:
            self._hopeless = has_any, now
            if not has_any:
                print(
                    f"note: no node of the Ray cluster has a {needs} for jobs; waiting "
                    f"{GROWTH_SECONDS:.0f} seconds for one",
                    file=sys.stderr,
                )
        elif now - self._hopeless[1] > (SILENCE_SECONDS if has_any else GROWTH_SECONDS):
            if has_any:
                raise UserError(
                    f"no node of the Ray cluster has answered in {SILENCE_SECONDS:.0f} seconds"
                )
            raise UserError(f"no node of the Ray cluster has a {needs} for jobs")

    def _hear(self, node: str, address: str, jobs: int) -> None:
        """Ask a node, or take what it has answered; ask again, ever later, if that was lost."""
        errors, now = self._ray.exceptions, time.monotonic()
        asked = self._asked.setdefault(node, _Asked(now, now))
        if asked.answer is None and now >= asked.again:
            asked.answer = self._ask(node)
        if asked.answer is not None:
            try:
                greeting: Greeting = self._ray.get(asked.answer, timeout=0)
            except errors.GetTimeoutError:
                pass
            except errors.RayTaskError as error:
                reason = str(error).strip().splitlines()[-1]
                self.refuse(node, f"it cannot run the project: {reason}", address)
                del self._asked[node]
                return
            except errors.RayError:  # lost with its worker, or its node
                asked.answer, asked.losses = None, asked.losses + 1
                asked.again = now + min(NODES_SECONDS * 2**asked.losses, LONGEST_PAUSE)
            else:
                del self._asked[node]
                if greeting.difference:
                    self.refuse(node, f"its bits could differ: {greeting.difference}", address)
                else:
                    self.facts[node] = {"cpu": greeting.cpu, "jobs": jobs}
                return
        if now - asked.since > SLOW_SECONDS and not asked.is_reported:
            asked.is_reported = True
            losses = f" ({asked.losses} workers died)" if asked.losses else ""
            print(
                f"note: node {address} has not answered in {SLOW_SECONDS:.0f} seconds{losses}; "
                "it gets jobs when it does",
                file=sys.stderr,
            )

    def _ask(self, node: str) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if self._greet is None:
            self._greet = self._ray.remote(num_cpus=0, max_retries=0)(greet)
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        return self._greet.options(scheduling_strategy=there).remote(self._software, self._needed)
