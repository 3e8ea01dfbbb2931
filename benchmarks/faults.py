"""What kills, full disks and torn files cost a search: a table of injected faults.

    python benchmarks/faults.py                  (about half an hour; Linux, root for the mounts)
    python benchmarks/faults.py --only disk      (one group: other rows of the file stay)

Every trial runs one small search (MLPs of 10,000 parameters, 2 workers), injects its faults at
random instants between the start and the end, runs the same command to its end and compares the
results CSV with that of an undisturbed run, in every column but the seconds. Ray runs on a cluster
of two nodes of one CPU on the loopback interface; without Ray its rows are left out. Prints the
table and writes results/benchmarks/faults.csv, after every row.
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
from collections.abc import Callable, Iterator
from pathlib import Path

from fault_trials import LOG, RESULTS, Row, Trial, without_seconds
from faults_cluster import two_nodes
from machine import report

from command_line.parser import Parser, run

WORKERS = 2
DRIVER_KILLS, RAY_DRIVER_KILLS = 100, 20
WORKER_KILLS, RAY_WORKER_KILLS, KILLS_PER_SEARCH = 20, 20, 2
NODE_KILLS = 3  # of kills of workers two a search: a job is given up at its third loss
CUTS = 20  # of a log, each at a random byte
DISK_PAGES = (1, 2, 2)  # sizes of the disk that gets full, in pages of memory: three suffice
GONE_SECONDS = 20.0  # within which nothing of a killed search may still run


def members(session: int) -> list[int]:
    """Return the running processes of a session."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            fields = Path("/proc", name, "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(name))
    return found


def workers_of(driver: int, executor: str) -> list[int]:
    """Return the processes that train: children of the driver, or Ray's that run a job."""
    if executor == "ray":
        pattern = ["pgrep", "-f", "^ray::_serve"]
    else:
        pattern = ["pgrep", "-P", str(driver), "-f", "spawn_main"]
    return list(map(int, subprocess.run(pattern, capture_output=True, text=True).stdout.split()))


class Faults:
    """Injects the faults of one executor."""

    def __init__(self, base: Path, executor: str, flags: list[str], in_flight: int) -> None:
        self.base, self.executor, self.flags, self.in_flight = base, executor, flags, in_flight
        self.random = random.Random(0)
        self.folders = itertools.count()
        begin = time.monotonic()
        trial = self.trial()
        self.expected: list[str] = []
        trial.complete(Row("none", executor, in_flight), [])
        self.seconds = time.monotonic() - begin
        self.expected = without_seconds(trial.results / RESULTS)
        self.whole = trial.results

    def trial(self, results: Path | None = None) -> Trial:
        """Return a search that has not started."""
        folder = self.base / f"{self.executor}-{next(self.folders)}"
        folder.mkdir()
        return Trial(folder, self.flags, results)

    def row(self, fault: str) -> Row:
        """Return an empty row."""
        return Row(fault, self.executor, self.in_flight)

    def driver_kills(self, count: int) -> Row:
        """Kill drivers; a search that ends before its kill is compared, and a new one begun."""
        row = self.row("kill -9 of the driver")
        trial = self.trial()
        while row.faults < count:
            process = trial.start()
            try:
                process.communicate(timeout=self.random.uniform(0, self.seconds))
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                row.left_running += self.left(process.pid)
                trial.note_fault(row)
            else:
                trial.count(row, self.expected)
                trial = self.trial()
        trial.complete(row, self.expected)
        return row

    def left(self, session: int) -> int:
        """Return how many processes of a session do not end by themselves."""
        until = time.monotonic() + GONE_SECONDS
        while (left := members(session)) and time.monotonic() < until:
            time.sleep(0.05)
        return len(left)

    def worker_kills(self, count: int) -> Row:
        """Kill workers of searches that go on; each lost job starts again in the same run."""
        row = self.row("kill -9 of a worker")
        while row.faults < count:
            trial = self.trial()
            process = trial.start()
            for _ in range(KILLS_PER_SEARCH):
                time.sleep(self.random.uniform(0, self.seconds / KILLS_PER_SEARCH))
                if found := workers_of(process.pid, self.executor):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(self.random.choice(found), signal.SIGKILL)
                        row.faults += 1
            trial.finish(process, row, self.expected)
        return row

    def node_kills(self, kill_a_node: Callable[[], None]) -> Row:
        """Kill one of two nodes in mid-search."""
        row = self.row("kill -9 of a node")
        for _ in range(NODE_KILLS):
            trial = self.trial()
            process = trial.start()
            while len(trial.log()) < 5:
                time.sleep(0.05)
            time.sleep(self.random.uniform(0, 2))
            kill_a_node()
            row.faults += 1
            trial.finish(process, row, self.expected)
        return row

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


def local_rows(base: Path, only: str | None) -> Iterator[Row]:
    """Yield the rows of the local executor."""
    faults = Faults(base, "local", ["--workers", str(WORKERS)], WORKERS)
    if only in (None, "kills"):
        yield faults.driver_kills(DRIVER_KILLS)
        yield faults.worker_kills(WORKER_KILLS)
    if only in (None, "disk"):
        yield faults.full_disks()
        yield faults.read_only_folders()
        yield faults.torn_logs()


def ray_rows(base: Path) -> Iterator[Row]:
    """Yield the rows of Ray."""
    with two_nodes() as (address, kill_a_node):
        flags = ["--executor", "ray", "--ray-address", address]
        faults = Faults(base, "ray", flags, 2 * WORKERS)
        yield faults.driver_kills(RAY_DRIVER_KILLS)
        yield faults.worker_kills(RAY_WORKER_KILLS)
        yield faults.node_kills(kill_a_node)


def every_row(base: Path, only: str | None) -> Iterator[Row]:
    """Yield the rows of a group, or of all that can be measured here."""
    if only != "ray":
        yield from local_rows(base, only)
    if only in (None, "ray") and importlib.util.find_spec("ray"):
        yield from ray_rows(base)


def main() -> None:
    """Inject, print, write."""
    parser = Parser(__doc__)
    parser.add_argument("--only", choices=("kills", "disk", "ray"), help="measure one group")
    only = parser.parse_args().only
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        for row in every_row(Path(folder), only):
            rows.append(row)
            report([row.values() for row in rows], "faults", keys=("fault", "executor"))


if __name__ == "__main__":
    run(main)
