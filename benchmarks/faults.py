"""What kills, full disks and torn files cost a search: a table of injected faults.

    python benchmarks/faults.py                  (about an hour; Linux, root for the mounts)
    python benchmarks/faults.py --only disk      (one group: other rows of the file stay)

Every trial runs one small search (MLPs of 10,000 parameters, 2 workers), injects its faults at
random instants between the start of its first probe and the end, runs the same command to its end
and compares the results CSV with that of an undisturbed run, in every column but the seconds.
Workers and nodes are killed while they train. Ray runs on a cluster of two nodes of one CPU on the
loopback interface, and once started by the search itself; without Ray its rows are left out. Prints
the table and writes results/benchmarks/faults.csv, after every row.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from fault_trials import (
    CLUSTER,
    LOG,
    RESULTS,
    Family,
    Row,
    Trial,
    add_node,
    raylet,
    started_cluster,
    training,
    without_seconds,
)
from machine import report

from command_line.parser import Parser, run
from threshold_search.executors.ray_workers import IN_FLIGHT

WORKERS = 2
DRIVER_KILLS = {"local": 100, "ray": 20, "ray of its own": 5}
WORKER_KILLS, NODE_KILLS = 20, 10
ATTEMPTS = 5  # searches per kill, of which some end before it
CUTS = 20  # of a log, each at a random byte
DISK_PAGES = (1, 2, 2)  # sizes of the disk that gets full, in pages of memory: three suffice
GROUPS = ("drivers", "workers", "disk", "ray-drivers", "ray-workers", "ray-nodes", "own-ray")


class Faults:
    """Injects the faults of one executor."""

    def __init__(self, base: Path, executor: str, *flags: str) -> None:
        """Take what the executor is called and its flags."""
        self.base, self.executor, self.flags = base, executor, list(flags)
        self.random = random.Random(0)
        self.folders = itertools.count()
        trial = self.trial()
        process = trial.start()
        trial.await_first_probe(process)
        begin = time.monotonic()
        trial.finish(process, self.row("none"), [])
        self.seconds = time.monotonic() - begin
        self.expected = without_seconds(trial.results / RESULTS)
        self.whole = trial.results

    def trial(self, results: Path | None = None) -> Trial:
        """Return a search that has not started."""
        folder = self.base / f"trial-{next(self.folders)}"
        folder.mkdir()
        return Trial(folder, self.flags, results)

    def row(self, fault: str) -> Row:
        """Return an empty row."""
        return Row(fault, self.executor, WORKERS * (1 if self.executor == "local" else IN_FLIGHT))

    def driver_kills(self) -> Row:
        """Kill drivers; a search that ends before its kill is begun anew."""
        row = self.row("kill -9 of the driver")
        trial = self.trial()
        while row.faults < DRIVER_KILLS[self.executor]:
            process = trial.start()
            trial.await_first_probe(process)
            try:
                process.communicate(timeout=self.random.uniform(0, self.seconds))
            except subprocess.TimeoutExpired:
                family = Family(process.pid)
                process.kill()
                process.communicate()
                row.left_running += family.left_running()
                trial.note_fault(row)
            else:
                trial.count(row, self.expected)
                trial = self.trial()
        trial.finish(trial.start(), row, self.expected)
        return row

    def worker_kills(self, ancestor: int | None = None) -> Row:
        """Kill workers: below ``ancestor``, by default the driver."""

        def kill(found: Sequence[int]) -> None:
            os.kill(self.random.choice(found), signal.SIGKILL)

        row = self.row("kill -9 of a worker")
        return self.survived_kills(row, WORKER_KILLS, lambda driver: ancestor or driver, kill)

    def survived_kills(
        self,
        row: Row,
        count: int,
        ancestor_of: Callable[[int], int],
        kill: Callable[[Sequence[int]], None],
    ) -> Row:
        """Kill while some processes train, in a search that goes on and trains again what is lost.

        ``ancestor_of`` tells from the driver's process below which one they are.
        """
        for _ in range(ATTEMPTS * count):
            trial = self.trial()
            process = trial.start()
            trial.await_first_probe(process)
            time.sleep(self.random.uniform(0, self.seconds))
            while not (found := training(ancestor_of(process.pid))) and process.poll() is None:
                time.sleep(0.02)  # Ray names a process so only while it trains
            if found:
                with contextlib.suppress(ProcessLookupError):
                    kill(found)
                    trial.has_fault = True
            trial.finish(process, row, self.expected)
            if trial.has_fault:  # what it lost it began again
                begun = trial.begun()
                trial.note_fault(row, len(begun) - len(set(begun)))
            if row.faults == count:
                return row
        raise RuntimeError(f"{row.fault}: found only {row.faults} to kill")

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
                trial.finish(trial.start(), row, self.expected)
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
            with mounted(self.base, "--bind", str(trial.results)) as place:
                subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
                away = Trial(trial.folder, self.flags, place)
                away.seen = trial.log()
                self.refused(away, row)
            trial.seen, trial.has_fault = away.seen, True
            trial.finish(trial.start(), row, self.expected)
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
            trial.note_fault(row, int(not content[:cut].endswith(b"\n")))
            trial.finish(trial.start(), row, self.expected)
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


def rows_of(group: str, base: Path) -> Iterator[Row]:
    """Yield the rows of a group of faults."""
    if "ray" not in group:
        faults = Faults(base, "local", "--workers", str(WORKERS))
        if group == "disk":
            yield faults.full_disks()
            yield faults.read_only_folders()
            yield faults.torn_logs()
        else:
            yield faults.driver_kills() if group == "drivers" else faults.worker_kills()
    elif group == "own-ray":
        flags = ["--executor", "ray", "--workers", str(WORKERS)]
        yield Faults(base, "ray of its own", *flags).driver_kills()
    else:
        with started_cluster() as cluster:
            second = add_node(cluster)
            faults = Faults(base, "ray", "--executor", "ray", "--ray-address", cluster.address)
            if group == "ray-drivers":
                yield faults.driver_kills()
            elif group == "ray-workers":
                yield faults.worker_kills(CLUSTER)
            else:

                def replace(_: object) -> None:
                    nonlocal second
                    cluster.remove_node(second, allow_graceful=False)
                    second = add_node(cluster)

                row = faults.row("kill -9 of a node")
                yield faults.survived_kills(row, NODE_KILLS, lambda _: raylet(second), replace)


def main() -> None:
    """Inject, print, write."""
    parser = Parser(__doc__)
    parser.add_argument("--only", choices=GROUPS, help="measure one group")
    only = parser.parse_args().only
    has_ray = importlib.util.find_spec("ray") is not None
    rows: list[Row] = []
    for group in [only] if only else [name for name in GROUPS if has_ray or "ray" not in name]:
        with tempfile.TemporaryDirectory(prefix="faults-") as folder:
            for row in rows_of(group, Path(folder)):
                rows.append(row)
                report([row.values() for row in rows], "faults", keys=("fault", "executor"))


if __name__ == "__main__":
    run(main)
