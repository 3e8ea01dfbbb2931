"""One search into which faults are injected, and what they cost it, for benchmarks/faults.py."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

CHILD = Path(__file__).with_name("journaled_search.py")
SEARCH = ["--model", "mlp", "--params", "10000", "--layers", "2", "3", "--repeats", "1"]
LOG, RESULTS = "mlp_probes.csv", "mlp_results.csv"


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
    left_running: int = 0  # processes, some seconds after their driver was killed

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
            [sys.executable, str(CHILD), str(self.journal), *self.flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def complete(self, row: Row, expected: list[str]) -> None:
        """Run the search to its end and count what became of it in ``row``."""
        self.finish(self.start(), row, expected)

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

    def note_fault(self, row: Row) -> None:
        """Count a fault that has just happened, and what it lost."""
        log = self.log()
        self.has_fault = True
        row.faults += 1
        row.rows_missing += len(set(self.seen) - set(log))
        self.seen = log
        row.lost.append(len(set(self.begun()) - {probe_of(line) for line in log}))

    def note_survived_fault(self, row: Row) -> None:
        """Count a fault of a run that went on to its end: what it lost it began again."""
        begun = self.begun()
        row.faults += 1
        row.lost.append(len(begun) - len(set(begun)))

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
