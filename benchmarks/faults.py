"""What kills, full disks and torn files cost a search: a table of injected faults.

    python benchmarks/faults.py                  (about half an hour; Linux, root for the mounts)
    python benchmarks/faults.py --only disk      (prints the rows of one group, writes nothing)

Every trial runs one small search (MLPs of 10,000 parameters, 2 workers), injects its faults at
random instants between the start and the end, runs the same command to its end and compares the
results CSV with that of an undisturbed run, in every column but the seconds. Ray runs on a cluster
of two nodes of one CPU on the loopback interface; without Ray its rows are left out. Prints the
table and writes results/benchmarks/faults.csv.
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
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from faults_cluster import two_nodes
from machine import report

from command_line.parser import Parser, run

CHILD = Path(__file__).with_name("journaled_search.py")
# Without guesses: what is lost is then what was asked for.
SEARCH = [
    *("--model", "mlp", "--params", "10000", "--layers", "2", "3", "--repeats", "1"),
    "--no-speculation",
]
LOG, RESULTS = "mlp_probes.csv", "mlp_results.csv"
WORKERS = 2
DRIVER_KILLS, RAY_DRIVER_KILLS = 100, 20
WORKER_KILLS, RAY_WORKER_KILLS, KILLS_PER_SEARCH = 20, 20, 2
NODE_KILLS = 3  # of kills of workers two a search: a job is given up at its third loss
CUTS = 20  # of a log, each at a random byte
DISK_PAGES = (1, 2, 3)  # sizes of the disk that gets full, in pages of memory
GONE_SECONDS = 20.0  # within which nothing of a killed search may still run


@dataclass
class Row:
    """One line of the table; the counts are summed over its trials."""

    fault: str
    executor: str
    in_flight: int  # probes that may be at once
    faults: int = 0
    searches: int = 0  # brought to their end afterwards
    lost: list[int] = field(default_factory=list)  # submitted and not in the log, by fault
    rows_missing: int = 0  # rows that the log had before and not after
    trained_again: int = 0  # probes that the log has twice
    results_equal: int = 0
    refused_in_one_line: int = 0  # exit status 2 and one line on stderr
    left_running: int = 0  # processes, some seconds after their driver was killed

    def values(self) -> dict[str, object]:
        """Return the row as the CSV has it."""
        lost = self.lost
        facts = {name: value for name, value in vars(self).items() if name != "lost"}
        return {
            **facts,
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

    def start(self) -> subprocess.Popen[str]:
        """Start the search, or go on with it, in a session of its own."""
        self.journal = self.folder / f"journal-{next(self.runs)}"
        return subprocess.Popen(
            [sys.executable, str(CHILD), str(self.journal), *self.flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def complete(self, row: Row, expected: list[str]) -> None:
        """Run the search to its end and count what became of it in ``row``."""
        process = self.start()
        _, stderr = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{row.fault}: exit status {process.returncode}: {stderr}")
        self.count(row, expected)

    def count(self, row: Row, expected: list[str]) -> None:
        """Count the ended search in ``row``."""
        log = self.log()
        keys = [probe_of(line) for line in log]
        row.searches += 1
        row.rows_missing += len(set(self.seen) - set(log))
        row.trained_again += len(keys) - len(set(keys))
        row.results_equal += without_seconds(self.results / RESULTS) == expected

    def note_fault(self, row: Row) -> None:
        """Count a fault that has just happened, and what it lost."""
        log = self.log()
        row.faults += 1
        row.rows_missing += len(set(self.seen) - set(log))
        self.seen = log
        submitted = self.journal.read_text().splitlines() if self.journal.exists() else []
        row.lost.append(len(set(submitted) - {probe_of(line) for line in log}))

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
            _, stderr = process.communicate()
            if process.returncode:
                raise RuntimeError(stderr)
            trial.count(row, self.expected)
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
            _, stderr = process.communicate()
            if process.returncode:
                raise RuntimeError(stderr)
            trial.count(row, self.expected)
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


def main() -> None:
    """Inject, print, write."""
    parser = Parser(__doc__)
    parser.add_argument("--only", choices=("kills", "disk", "ray"), help="print one group's rows")
    only = parser.parse_args().only
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        if only != "ray":
            rows += local_rows(Path(folder), only)
        if only in (None, "ray") and importlib.util.find_spec("ray"):
            rows += ray_rows(Path(folder))
    if only is None:
        report([row.values() for row in rows], "faults")
    else:
        print(*(row.values() for row in rows), sep="\n")


if __name__ == "__main__":
    run(main)
