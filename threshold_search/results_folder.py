"""The results folder: the append-only probe log, the results derived from it, and their lock."""

from __future__ import annotations

import csv
import io
import os
import sys
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Self

from command_line.files import append_whole, is_plain, require_writable, write_whole
from threshold_search.folder_lock import FolderLock
from threshold_search.records import Layout, probe_layout, result_layout
from training.bits import BITS_VERSION
from training.errors import UserError
from training.probe_types import Outcome, Probe
from training.spec import Architecture, ModelSpec

_CHECKOUT = Path(__file__).resolve().parent.parent
# An installed copy of the project has no results of its own, and must not start some there.
DEFAULT_FOLDER = (_CHECKOUT if (_CHECKOUT / "pyproject.toml").exists() else Path()) / "results"


def _key(values: dict[str, Any], last: str) -> tuple:
    """Identity of a row: every column up to and including ``last``."""
    columns = list(values)
    return tuple(values[column] for column in columns[: columns.index(last) + 1])


Row = dict[str, Any]
LayoutOf = Callable[[list[str]], Layout | None]  # of the header's columns
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
BLANK = BYTE_ORDER_MARK + b"\r\n\t ,"  # all that a spreadsheet writes of an empty sheet


def read_rows(
    path: Path, layout: Layout | LayoutOf, check: Callable[[Row], None] = lambda row: None
) -> list[Row]:
    """Return the rows of a CSV; raise :class:`UserError` for another layout or a bad row.

    ``layout`` is what the file must have, or a function that finds it by the header. A blank file
    has no rows. ``check`` raises ValueError for a row that is bad for another reason.
    """
    content = _content(path)
    return _parse_rows(path, content, layout, check) if content else []


def _content(path: Path) -> bytes:
    """Return the bytes of ``path``, none if it is blank.

    A device or pipe is an output: there is nothing to read.
    """
    try:
        content = path.read_bytes() if path.is_dir() or is_plain(path) else b""
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    return content if content.strip(BLANK) else b""


def _parse_rows(
    path: Path,
    content: bytes,
    layout: Layout | LayoutOf,
    check: Callable[[Row], None] = lambda row: None,
) -> list[Row]:
    """Return the rows in ``content``; blank lines and empty fields at the end of lines are none.

    Both are what spreadsheets write, as are a byte-order mark, TRUE and 33.0.
    """
    rows = []
    found: Layout | None = None
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        for fields in reader:
            if not any(field.strip() for field in fields):
                continue
            width = len(found.columns) if found else 0
            while len(fields) > width and not fields[-1]:
                fields.pop()
            if found is None:
                found = layout if isinstance(layout, Layout) else layout(fields)
                if found is None or fields != found.columns:
                    raise UserError(
                        f"{path} has another layout: its first line is not this version's; "
                        "move it away, or use another folder (--results-dir)"
                    )
                continue
            try:
                row = found.parse(fields)
                check(row)
            except ValueError as error:
                raise UserError(f"{path} line {reader.line_num}: {error}") from None
            rows.append(row)
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
        self._state: tuple[int, ...] | None = None  # of the file as we left it
        self._before_next = self._layout.header + "\n"  # what the file lacks before another row

    def load(self) -> None:
        """Read the log up to a last line that a crash left unfinished; change nothing yet."""
        if not self.path.exists():
            return
        content = _content(self.path)
        whole = content[: max(content.rfind(b"\n"), content.rfind(b"\r")) + 1]
        torn = content[len(whole) :].removeprefix(BYTE_ORDER_MARK)
        if torn and (whole.strip(BLANK) or self._layout.header.encode().startswith(torn)):
            content = whole
            self._whole_bytes = len(content)
        if not content.strip(BLANK):
            # A blank file loses what it has: what is written next has to begin it.
            if is_plain(self.path) and self.path.stat().st_size > 0:
                self._whole_bytes = 0
            return
        self._before_next = "" if content == whole else "\n"
        contradicting = set()
        for values in _parse_rows(self.path, content, self._layout):
            key = _key(values, "n")
            columns = list(values)
            fields = {c: values[c] for c in columns[columns.index("n") + 1 :]}
            outcome = Outcome(**fields)
            known = self._outcomes.setdefault(key, outcome)
            if known is outcome:
                continue
            if known.memorized != outcome.memorized:
                contradicting.add(key)
            # Of several rows of one probe the first in this order counts, wherever it stands.
            self._outcomes[key] = min(known, outcome, key=lambda o: self._line(key, o))
        if contradicting:
            print(
                f"{self.path}: {len(contradicting)} of {len(self._outcomes)} probes have rows with "
                "contradicting verdicts (merged from machines whose bits differ?); of each, the "
                "row that sorts first counts",
                file=sys.stderr,
            )

    def repair(self) -> None:
        """Drop (and report) the unfinished last line that :meth:`load` found."""
        if self._whole_bytes is not None:
            os.truncate(self.path, self._whole_bytes)
            self._whole_bytes = None
            print(f"{self.path}: dropped an unfinished last line", file=sys.stderr)
        self._state = self._file_state()

    def label(self, probe: Probe) -> str:
        """Return what the protocol column says of such a probe trained here."""
        return probe.label + self._variant(probe.architecture)

    def get(self, probe: Probe) -> Outcome | None:
        """Return the outcome of a finished probe, or None."""
        return self._outcomes.get(_key(self._identity(probe), "n"))

    def append(self, probe: Probe, outcome: Outcome) -> None:
        """Add a finished probe in one write, so that a kill leaves at most one torn line.

        A log that was deleted meanwhile is written again, from its first row on. Raises
        :class:`UserError` if it was changed otherwise, or cannot be written.
        """
        key = _key(self._identity(probe), "n")
        state = self._file_state()
        if state != self._state and state is not None:
            raise UserError(
                f"{self.path} was changed by something else while the search was writing to it; "
                "nothing more was written, the same command continues from what it holds now"
            )
        lines = [self._before_next, self._line(key, outcome)]
        if state is None and self._state is not None:
            known = [self._line(*row) for row in self._outcomes.items()]
            lines = [self._layout.header, "\n", *known, lines[-1]]
            print(f"{self.path} was deleted; it is written again", file=sys.stderr)
        append_whole(self.path, "".join(lines).encode())
        self._before_next = ""
        self._outcomes[key] = outcome
        self._state = self._file_state()

    def _line(self, key: tuple, outcome: Outcome) -> str:
        values = (*key, *vars(outcome).values())
        return self._layout.line(dict(zip(self._layout.columns, values, strict=True)))

    def _file_state(self) -> tuple[int, ...] | None:
        """Return what tells whether the file is still the one we left, or None without one."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino, found.st_size

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
        write_whole(self.path, lambda file: file.write("".join(lines).encode()))


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
        self._lock = FolderLock(self.folder)
        self.logs = {
            s.name: ProbeLog(self.folder / f"{s.name}_probes.csv", s, variant) for s in specs
        }
        self.results = {
            s.name: ResultsTable(self.folder / f"{s.name}_results.csv", s) for s in specs
        }

    def __enter__(self) -> Self:
        """Create the folder if need be, wait for the lock, read what is there."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {self.folder}: {error.strerror}") from None
        for log in self.logs.values():
            if log.path.exists():
                require_writable(log.path)
        self._lock.acquire()
        try:
            for log in self.logs.values():
                log.load()
            for table in self.results.values():
                table.load()
            for log in self.logs.values():
                log.repair()
        except BaseException:
            self._lock.release(undo=True)
            raise
        return self

    def label(self, probe: Probe) -> str:
        """Return what the protocol column says of such a probe."""
        return self.logs[probe.architecture.spec.name].label(probe)

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        self._lock.release()
