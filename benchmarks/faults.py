"""What kills, full disks and torn files cost a search: a table of injected faults.

    python benchmarks/faults.py                  (about an hour; Linux, root for the mounts)
    python benchmarks/faults.py --only disk      (one group: other rows of the file stay)

Every trial runs one small search (MLPs of 10,000 parameters, 2 workers), injects
its faults at random instants between the start of its first probe and the end, runs the same
command to its end and compares the results CSV with that of an undisturbed run, in every column but
the seconds. Workers and nodes are killed while they train. Ray runs on a cluster of two nodes of
one CPU on the loopback interface, and once started by the search itself; without Ray its rows are
left out. Prints the table and writes results/benchmarks/faults.csv, after every row.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import itertools
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from fault_processes import Family, cluster_workers, left_running, local_workers
from fault_trials import LOG, RESULTS, Row, Trial, without_seconds
from faults_cluster import TwoNodes, two_nodes
from machine import report

from command_line.parser import Parser, run
from threshold_search.executors.ray_workers import IN_FLIGHT

WORKERS = 2
DRIVER_KILLS, RAY_DRIVER_KILLS, OWN_RAY_DRIVER_KILLS = 100, 20, 5
WORKER_KILLS, NODE_KILLS = 20, 10
ATTEMPTS = 5  # searches per kill, of which some end before it
CUTS = 20  # of a log, each at a random byte
OWN_RAY = "ray of its own"
DISK_PAGES = (1, 2, 2)  # sizes of the disk that gets full, in pages of memory: three suffice


class Faults:
    """Injects the faults of one executor."""

    def __init__(self, base: Path, executor: str, flags: list[str], in_flight: int) -> None:
        """Take what the executor is called, its flags and how many jobs it has in flight."""
        self.base, self.executor, self.flags, self.in_flight = base, executor, flags, in_flight
        self.random = random.Random(0)
        self.folders = itertools.count()
        trial = self.trial()
        process = trial.start()
        self.await_first_probe(trial, process)
        begin = time.monotonic()
        trial.finish(process, Row("none", executor, in_flight), [])
        self.seconds = time.monotonic() - begin
        self.expected = without_seconds(trial.results / RESULTS)
        self.whole = trial.results

    def trial(self, results: Path | None = None) -> Trial:
        """Return a search that has not started."""
        folder = self.base / f"{self.executor.replace(' ', '-')}-{next(self.folders)}"
        folder.mkdir()
        return Trial(folder, self.flags, results)

    def await_first_probe(self, trial: Trial, process: subprocess.Popen[str]) -> None:
        """Return when the run has begun a probe, or has ended."""
        while not trial.begun() and process.poll() is None:
            time.sleep(0.005)

    def row(self, fault: str) -> Row:
        """Return an empty row."""
        return Row(fault, self.executor, self.in_flight)

    def driver_kills(self, count: int) -> Row:
        """Kill drivers; a search that ends before its kill is begun anew."""
        row = self.row("kill -9 of the driver")
        trial = self.trial()
        while row.faults < count:
            process = trial.start()
            self.await_first_probe(trial, process)
            try:
                process.communicate(timeout=self.random.uniform(0, self.seconds))
            except subprocess.TimeoutExpired:
                family = Family(process.pid)
                process.kill()
                process.communicate()
                row.left_running += left_running(family)
                trial.note_fault(row)
            else:
                trial.count(row, self.expected)
                trial = self.trial()
        trial.complete(row, self.expected)
        return row

    def survived_kills(
        self,
        fault: str,
        count: int,
        training: Callable[[int], list[int]],
        kill: Callable[[list[int]], None],
    ) -> Row:
        """Kill while some processes train, in a search that goes on and trains again what is lost.

        ``training`` tells from the driver's process which of them train now.
        """
        row = self.row(fault)
        for _ in range(ATTEMPTS * count):
            trial = self.trial()
            process = trial.start()
            self.await_first_probe(trial, process)
            time.sleep(self.random.uniform(0, self.seconds))
            while not (found := training(process.pid)) and process.poll() is None:
                time.sleep(0.02)  # Ray names a process so only while it trains
            is_killed = False
            if found:
                with contextlib.suppress(ProcessLookupError):
                    kill(found)
                    is_killed = True
            trial.has_fault = is_killed
            trial.finish(process, row, self.expected)
            if is_killed:
                trial.note_survived_fault(row)
            if row.faults == count:
                return row
        raise RuntimeError(f"{row.fault}: found only {row.faults} to kill")

    def worker_kills(self, count: int, workers_of: Callable[[int], list[int]]) -> Row:
        """Kill a worker."""

        def kill(workers: list[int]) -> None:
            os.kill(self.random.choice(workers), signal.SIGKILL)

        return self.survived_kills("kill -9 of a worker", count, workers_of, kill)

    def node_kills(self, count: int, cluster: TwoNodes) -> Row:
        """Kill the second of two nodes."""
        return self.survived_kills(
            "kill -9 of a node",
            count,
            lambda driver: cluster_workers(cluster.second_raylet),
            lambda workers: cluster.replace_second(),
        )

    def refused(self, trial: Trial, row: Row) -> None:
        """Run a search that cannot write; count whether it says so in one line."""
        process = trial.start()
        _, stderr = process.communicate()
        row.refused_in_one_line += process.returncode == 2 and stderr.count("\n") == 1
        trial.note_fault(row)

    def full_disks(self) -> Row:
        """Search on disks that get full, which grow when that is said."""
        row = self.row("full disk")
        page = os.sysconf("SC_PAGE_SIZE")
        for pages in DISK_PAGES:
            with mounted(self.base, "-t", "tmpfs", "-o", f"size={pages * page}", "tmpfs") as disk:
                trial = self.trial(disk)
                self.refused(trial, row)
                subprocess.run(["mount", "-o", "remount,size=1m", str(disk)], check=True)
                trial.complete(row, self.expected)
        return row

    def read_only_folders(self) -> Row:
        """Search in folders that become writable later: an empty one and half a search's."""
        row = self.row("read-only folder")
        for share in (0, 2):
            trial = self.trial()
            trial.results.mkdir()
            if share:
                lines = (self.whole / LOG).read_text().splitlines(keepends=True)
                (trial.results / LOG).write_text("".join(lines[: len(lines) // share]))
            trial.seen = trial.log()
            folder = str(trial.results)
            with mounted(self.base, "--bind", folder) as place:
                subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
                away = Trial(trial.folder, self.flags, place)
                away.seen = trial.seen
                self.refused(away, row)
            trial.has_fault = True
            trial.complete(row, self.expected)
        return row

    def torn_logs(self) -> Row:
        """Cut logs of ended searches at random bytes, as a crash of the machine may."""
        row = self.row("torn log")
        content = (self.whole / LOG).read_bytes()
        for _ in range(CUTS):
            trial = self.trial()
            shutil.copytree(self.whole, trial.results)
            cut = self.random.randrange(len(content))
            (trial.results / LOG).write_bytes(content[:cut])
            trial.seen = trial.log()
            trial.has_fault = True
            row.faults += 1
            row.lost.append(int(not content[:cut].endswith(b"\n")))
            trial.complete(row, self.expected)
        return row


@contextlib.contextmanager
def mounted(base: Path, *arguments: str) -> Iterator[Path]:
    """Mount something on a new folder for a while."""
    with tempfile.TemporaryDirectory(dir=base) as folder:
        subprocess.run(["mount", *arguments, folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def local_rows(base: Path, group: str) -> Iterator[Row]:
    """Yield the rows of a group of faults of the local executor."""
    faults = Faults(base, "local", ["--workers", str(WORKERS)], WORKERS)
    if group == "drivers":
        yield faults.driver_kills(DRIVER_KILLS)
    elif group == "workers":
        yield faults.worker_kills(WORKER_KILLS, local_workers)
    else:
        yield faults.full_disks()
        yield faults.read_only_folders()
        yield faults.torn_logs()


def cluster_rows(base: Path, group: str) -> Iterator[Row]:
    """Yield the row of a group of faults on a Ray cluster."""
    with two_nodes() as cluster:
        flags = ["--executor", "ray", "--ray-address", cluster.address]
        faults = Faults(base, "ray", flags, IN_FLIGHT * WORKERS)
        if group == "drivers":
            yield faults.driver_kills(RAY_DRIVER_KILLS)
        elif group == "workers":
            yield faults.worker_kills(WORKER_KILLS, lambda driver: cluster_workers())
        else:
            yield faults.node_kills(NODE_KILLS, cluster)


def own_ray_rows(base: Path) -> Iterator[Row]:
    """Yield the row of a Ray that the search starts for itself."""
    flags = ["--executor", "ray", "--workers", str(WORKERS)]
    yield Faults(base, OWN_RAY, flags, IN_FLIGHT * WORKERS).driver_kills(OWN_RAY_DRIVER_KILLS)


GROUPS: Mapping[str, Callable[[Path], Iterator[Row]]] = {
    **{name: functools.partial(local_rows, group=name) for name in ("drivers", "workers", "disk")},
    **{
        f"ray-{name}": functools.partial(cluster_rows, group=name)
        for name in ("drivers", "workers", "nodes")
    },
    "own-ray": own_ray_rows,
}


def main() -> None:
    """Inject, print, write."""
    parser = Parser(__doc__)
    parser.add_argument("--only", choices=tuple(GROUPS), help="measure one group")
    only = parser.parse_args().only
    has_ray = importlib.util.find_spec("ray") is not None
    groups = [only] if only else [name for name in GROUPS if has_ray or "ray" not in name]
    rows: list[Row] = []
    for group in groups:
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            for row in GROUPS[group](Path(folder)):
                rows.append(row)
                report([row.values() for row in rows], "faults", keys=("fault", "executor"))


if __name__ == "__main__":
    run(main)
