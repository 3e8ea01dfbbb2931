"""The results folder: the append-only probe log, the results derived from it, and their lock."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Self

from filelock import FileLock, Timeout

from command_line.files import write_atomically
from threshold_search.records import Layout, probe_layout, result_layout
from training.bits import BITS_VERSION
from training.errors import UserError
from training.probe_types import Outcome, Probe
from training.spec import Architecture, ModelSpec

DEFAULT_FOLDER = Path(__file__).resolve().parent.parent / "results"


def _key(values: dict[str, Any], last: str) -> tuple:
    """Identity of a row: every column up to and including ``last``."""
    columns = list(values)
    return tuple(values[column] for column in columns[: columns.index(last) + 1])


LayoutOf = Callable[[list[str]], Layout | None]  # of the header's columns


def read_rows(path: Path, layout: Layout | LayoutOf) -> list[dict[str, Any]]:
    """Return the rows of a CSV; raise :class:`UserError` for another layout or a bad row.

    ``layout`` is what the file must have, or a function that finds it by the header.
    """
    return _parse_rows(path, _content(path), layout)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def _parse_rows(path: Path, content: bytes, layout: Layout | LayoutOf) -> list[dict[str, Any]]:
    try:
        reader = csv.reader(io.StringIO(content.decode(), newline=""))
        header = next(reader, [])
        found = layout if isinstance(layout, Layout) else layout(header)
        if found is None or header != found.columns:
            raise UserError(
                f"{path} has another layout: its first line is not this version's; "
                "move it away, or use another folder (--results-dir)"
            )
        rows = []
        for row in reader:
            try:
                rows.append(found.parse(row))
            except ValueError as error:
                raise UserError(f"{path} line {reader.line_num}: {error}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a readable CSV: {error}") from None
    return rows


class ProbeLog:
    """The finished probes of one model, on disk as one row each.

    ``variant`` ends the protocol column: probes of another engine or device are other probes. So
    are those of another bits version, which the log may hold too.
    """

    def __init__(
        self, path: Path, spec: ModelSpec, variant: Callable[[Architecture], str] = lambda _: ""
    ) -> None:
        self.path, self._spec, self._variant = path, spec, variant
        self._layout = probe_layout(spec)
        self._outcomes: dict[tuple, Outcome] = {}
        self._whole_bytes: int | None = None  # length without a torn last line, if there is one

    def load(self) -> None:
        """Read the log up to a last line that a crash left unfinished; change nothing yet."""
        if not self.path.exists():
            return
        content = _content(self.path)
        whole, newline, torn = content.rpartition(b"\n")
        if torn and (newline or self._layout.header.encode().startswith(torn)):
            content = whole + newline
            self._whole_bytes = len(content)
        if not content:
            return
        rows = _parse_rows(self.path, content, self._layout)
        for number, values in enumerate(rows, start=2):
            key = _key(values, "n")
            columns = list(values)
            fields = {c: values[c] for c in columns[columns.index("n") + 1 :]}
            outcome = Outcome(**fields)
            known = self._outcomes.setdefault(key, outcome)
            if known.memorized != outcome.memorized:
                raise UserError(f"{self.path} line {number}: contradicts an earlier row")

    def repair(self) -> None:
        """Drop (and report) the unfinished last line that :meth:`load` found."""
        if self._whole_bytes is not None:
            os.truncate(self.path, self._whole_bytes)
            self._whole_bytes = None
            print(f"{self.path}: dropped an unfinished last line", file=sys.stderr)

    def label(self, probe: Probe) -> str:
        """Return what the protocol column says of such a probe trained here."""
        return probe.label + self._variant(probe.architecture)

    def get(self, probe: Probe) -> Outcome | None:
        """Return the outcome of a finished probe, or None."""
        return self._outcomes.get(_key(self._identity(probe), "n"))

    def append(self, probe: Probe, outcome: Outcome) -> None:
        """Add a finished probe in one write, so that a kill leaves at most one torn line."""
        identity = self._identity(probe)
        line = self._layout.line({**identity, **vars(outcome)})
        if not self.path.exists() or self.path.stat().st_size == 0:
            line = self._layout.header + "\n" + line
        try:
            with self.path.open("ab", buffering=0) as file:
                file.write(line.encode())
        except OSError as error:
            raise UserError(f"cannot write to {self.path}: {error.strerror}") from None
        self._outcomes[_key(identity, "n")] = outcome

    def _identity(self, probe: Probe) -> dict[str, Any]:
        return {
            "model": self._spec.name,
            "protocol": self.label(probe),
            "bits": BITS_VERSION,
            **probe.architecture.columns(),
            "repeat": probe.repeat,
            "seed": probe.seed,
            "n": probe.n,
        }


class ResultsTable:
    """One row per finished search; rewritten whole, in a fixed order, when a search ends."""

    def __init__(self, path: Path, spec: ModelSpec) -> None:
        self.path = path
        self._layout = result_layout(spec)
        self._rows: dict[tuple, dict[str, Any]] = {}

    def load(self) -> None:
        """Read the rows that earlier commands left."""
        if self.path.exists():
            rows = read_rows(self.path, self._layout)
            self._rows = {_key(values, "seed"): values for values in rows}

    def put(self, row: dict[str, Any]) -> None:
        """Add or replace the row of one search; rewrite the file if that changed anything."""
        values = {column: row[column] for column in self._layout.columns}
        key = _key(values, "seed")
        if self._rows.get(key) == values:
            return
        self._rows[key] = values
        lines = [self._layout.header + "\n"]
        lines += [self._layout.line(self._rows[key]) for key in sorted(self._rows)]
        write_atomically(self.path, lambda file: file.write("".join(lines).encode()))


class ResultsFolder:
    """Logs and results of some models, by name, held under a lock while in use.

    ``variant`` returns the end of the protocol column for an architecture's probes.
    """

    def __init__(
        self,
        folder: Path,
        specs: Collection[ModelSpec],
        variant: Callable[[Architecture], str] = lambda _: "",
    ) -> None:
        self.folder = Path(folder)
        self._lock = FileLock(self.folder / "results.lock")
        self.logs = {
            s.name: ProbeLog(self.folder / f"{s.name}_probes.csv", s, variant) for s in specs
        }
        self.results = {
            s.name: ResultsTable(self.folder / f"{s.name}_results.csv", s) for s in specs
        }

    def __enter__(self) -> Self:
        """Create the folder if need be, wait for the lock, read what is there."""
        lock_path = Path(self._lock.lock_file)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            is_new = not lock_path.exists()
            lock_path.open("ab").close()
            for log in self.logs.values():
                if log.path.exists():
                    log.path.open("ab").close()
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                print(
                    f"another search is using {self.folder}; waiting for it to end (Ctrl-C quits)",
                    file=sys.stderr,
                )
                self._lock.acquire()
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error.strerror}") from None
        try:
            for log in self.logs.values():
                log.load()
            for table in self.results.values():
                table.load()
            for log in self.logs.values():
                log.repair()
        except BaseException:
            self._lock.release()
            if is_new:
                lock_path.unlink(missing_ok=True)
            raise
        return self

    def label(self, probe: Probe) -> str:
        """Return what the protocol column says of such a probe."""
        return self.logs[probe.architecture.spec.name].label(probe)

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        self._lock.release()
