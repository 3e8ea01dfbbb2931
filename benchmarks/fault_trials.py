"""Searches into which benchmarks/faults.py injects faults: processes, a Ray cluster, what is lost.

    python benchmarks/fault_trials.py JOURNAL [FLAGS OF binary_search.py ...]

is such a search. The process that trains a probe appends a line (architecture, repeat, N) to the
file JOURNAL before it begins, so that after a kill it can be told which probes were in flight.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# This checkout's code. Not by machine.py, which imports torch.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from command_line.parser import run
from engines.engine import NativeEngine, OnEpoch
from threshold_search import binary_search
from threshold_search import run as runs
from threshold_search.executors.ray_connection import (
    ON_LOOPBACK,
    QUIET,
    STORE_BYTES,
    environment,
)
from training.probe import Probe

SEARCH = ["--model", "mlp", "--params", "10000", "--layers", "2", "3", "--repeats", "1"]
LOG, RESULTS = "mlp_probes.csv", "mlp_results.csv"
GONE_SECONDS = 120.0  # within which nothing of a killed search may still run
SERVES = "ray::serve"  # how Ray names a process that runs a job
CLUSTER = os.getpid()  # what the processes of a cluster that is started here descend from


@dataclass(frozen=True)
class Journaled(NativeEngine):
    """The compiled engine; writes down what it trains."""

    path: str = ""

    def train(
        self, probes: Sequence[Probe], on_epoch: OnEpoch = lambda record: None
    ) -> list[tuple[Any, Any]]:
        """Append the lines of ``probes`` to the journal in one write, then train."""
        lines = [f"{p.architecture.name} {p.repeat} {p.n}\n" for p in probes]
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, "".join(lines).encode())
        os.close(descriptor)
        return super().train(probes, on_epoch)


@dataclass
class Row:
    """One line of the table; the counts are summed over its trials."""

    fault: str
    executor: str
    jobs_in_flight: int  # that may be at once
    faults: int = 0
    searches: int = 0  # with faults, brought to their end
    lost: list[int] = field(default_factory=list)  # probes that had been begun, by fault
    rows_missing: int = 0  # rows that the log had before and not after
    trained_again: int = 0  # probes that the log has twice
    results_equal: int = 0
    refused_in_one_line: int = 0  # exit status 2 and one line on stderr
    left_running: int = 0  # processes, two minutes after their driver was killed

    def values(self) -> dict[str, object]:
        """Return the row as the CSV has it."""
        lost = self.lost
        facts = {name: value for name, value in vars(self).items() if name != "lost"}
        return {
            **facts,
            "faults_that_lost": sum(map(bool, lost)),
            "lost_largest": max(lost, default=0),
            "lost_mean": sum(lost) / len(lost) if lost else 0.0,
        }


class Trial:
    """One results folder and the search in it."""

    def __init__(self, folder: Path, executor: list[str], results: Path | None = None) -> None:
        self.folder = folder
        self.results = results or folder / "results"
        self.flags = [*SEARCH, *executor, "--results-dir", str(self.results)]
        self.runs = itertools.count()
        self.seen: list[str] = []  # lines of the log when a fault had happened
        self.has_fault = False

    def start(self) -> subprocess.Popen[str]:
        """Start the search, or go on with it."""
        self.journal = self.folder / f"journal-{next(self.runs)}"
        return subprocess.Popen(
            [sys.executable, __file__, str(self.journal), *self.flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def await_first_probe(self, process: subprocess.Popen[str]) -> None:
        """Return when the run has begun a probe, or has ended."""
        while not self.begun() and process.poll() is None:
            time.sleep(0.005)

    def finish(self, process: subprocess.Popen[str], row: Row, expected: list[str]) -> None:
        """Wait for the end of a search and count what became of it in ``row``."""
        _, stderr = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{row.fault}: exit status {process.returncode}: {stderr}")
        self.count(row, expected)

    def count(self, row: Row, expected: list[str]) -> None:
        """Count the ended search in ``row``, if it had a fault."""
        if not self.has_fault:
            return
        log = self.log()
        keys = [probe_of(line) for line in log]
        row.searches += 1
        row.rows_missing += len(set(self.seen) - set(log))
        row.trained_again += len(keys) - len(set(keys))
        row.results_equal += without_seconds(self.results / RESULTS) == expected

    def note_fault(self, row: Row, lost: int | None = None) -> None:
        """Count a fault that has just happened; by default it lost what had begun and not ended."""
        log = self.log()
        if lost is None:
            lost = len(set(self.begun()) - {probe_of(line) for line in log})
        self.has_fault = True
        row.faults += 1
        row.rows_missing += len(set(self.seen) - set(log))
        row.lost.append(lost)
        self.seen = log

    def begun(self) -> list[str]:
        """Return the lines of the journal of the last run."""
        return self.journal.read_text().splitlines() if self.journal.exists() else []

    def log(self) -> list[str]:
        """Return the whole lines of the log, without its header."""
        path = self.results / LOG
        text = path.read_text() if path.exists() else ""
        return text[: text.rfind("\n") + 1].splitlines()[1:]


def probe_of(line: str) -> str:
    """Return a line of the log as the journal has it."""
    fields = line.split(",")  # model, protocol, bits, parameters, size, layers, repeat, seed, n
    return f"{fields[4]}x{fields[5]} {fields[6]} {fields[8]}"


def without_seconds(path: Path) -> list[str]:
    """Return the lines of a results CSV without their last column."""
    return [line.rpartition(",")[0] for line in path.read_text().splitlines()]


# Processes (Linux).


def _running() -> dict[int, tuple[int, str, str]]:
    """Return the parent of every process that has not ended, when it began and its command."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            text = (folder / "stat").read_text(errors="replace")
            state, parent, *more = text.rpartition(")")[2].split()
            command = (folder / "cmdline").read_text(errors="replace")
            if state != "Z":
                found[int(folder.name)] = int(parent), more[17], command
    return found


def _below(ancestors: set[int], running: dict[int, tuple[int, str, str]]) -> set[int]:
    """Return the ``running`` processes that descend from one of ``ancestors``."""
    below: set[int] = set()
    while new := {p for p, (parent, *_) in running.items() if parent in ancestors | below} - below:
        below |= new
    return below


class Family:
    """A process and what it started, as far as it was seen before a parent ended."""

    def __init__(self, ancestor: int) -> None:
        """Look for the first time, while the ancestor runs."""
        self._members = {ancestor: _running().get(ancestor, (0, ""))[1]}
        self.running()

    def running(self) -> set[int]:
        """Return those that have not ended, and from now on know their new descendants too."""
        now = _running()
        # A number that has begun at another time is another process.
        alive = {p for p, begin in self._members.items() if p in now and now[p][1] == begin}
        alive |= _below(alive, now)
        self._members |= {pid: now[pid][1] for pid in alive}
        return alive

    def left_running(self) -> int:
        """Return how many do not end by themselves."""
        until = time.monotonic() + GONE_SECONDS
        while (left := self.running() | set(training(CLUSTER))) and time.monotonic() < until:
            time.sleep(0.05)
        return len(left)


def training(ancestor: int) -> list[int]:
    """Return the worker processes of a driver, or those that run a job below a process of Ray."""
    running = _running()
    commands = {pid: running[pid][2] for pid in _below({ancestor}, running)}
    return [p for p, c in commands.items() if c.startswith(SERVES) or "spawn_main" in c]


# A cluster.


@contextlib.contextmanager
def started_cluster() -> Iterator[Any]:
    """Start a ``ray.cluster_utils.Cluster`` of one node on the loopback interface, and end it.

    All that Ray leaves on disk is in a temporary folder, of this process and of what it starts.
    """
    folder = tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True)
    with folder, environment(QUIET | ON_LOOPBACK | {"RAY_TMPDIR": folder.name}):
        from ray.cluster_utils import Cluster

        cluster = Cluster()
        try:
            add_node(cluster, include_dashboard=False, no_monitor=True)
            yield cluster
        finally:
            cluster.shutdown()


def add_node(cluster: Any, **options: Any) -> Any:
    """Add a node of one CPU to a cluster and return it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return cluster.add_node(
        node_ip_address="127.0.0.1",
        num_cpus=1,
        object_store_memory=STORE_BYTES,
        include_log_monitor=False,  # nobody reads the logs
        runtime_env_agent_port=port,  # a node ends that waits for one for 15 seconds
        **options,
    )


def raylet(node: Any) -> int:
    """Return the process of a cluster's node whose children are its workers."""
    (process,) = node.all_processes["raylet"]
    return int(process.process.pid)


if __name__ == "__main__":
    journal = os.path.abspath(sys.argv.pop(1))
    runs.choose_engine = lambda *_: Journaled(path=journal)
    run(binary_search.main)
