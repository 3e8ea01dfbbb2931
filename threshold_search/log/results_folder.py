"""The results folder: the append-only probe log, the results derived from it, and their lock."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Self

from command_line.files import require_writable, write_whole
from threshold_search.log import published
from threshold_search.log.folder_lock import FolderLock
from threshold_search.log.layout import DEFAULT_TASK, result_layout
from threshold_search.log.probe_log import ProbeLog
from threshold_search.log.reader import content_of, parse_table
from training.errors import UserError
from training.probe import Probe
from training.spec import ModelSpec

_CHECKOUT = Path(__file__).resolve().parent.parent.parent
# An installed copy of the project has no results of its own, and must not start some there.
DEFAULT_FOLDER = (_CHECKOUT if (_CHECKOUT / "pyproject.toml").exists() else Path()) / "results"


class ResultsTable:
    """One row per finished search, in a fixed order. The file is always written whole."""

    def __init__(self, path: Path, spec: ModelSpec) -> None:
        self.path = path
        self._layout = result_layout(spec)
        self._columns = self._layout.columns  # of the file: an old one has fewer
        self._rows: dict[tuple, Mapping[str, Any]] = {}
        self._is_written = True

    def load(self) -> None:
        """Read the rows that earlier commands left."""
        content = content_of(self.path) if self.path.exists() else b""
        if content:
            table = parse_table(self.path, content, self._layout)
            self._columns = table.columns
            for row in table.rows:
                values = dict(zip(self._layout.columns, row, strict=True))
                self._rows[row[: self._layout.key_length]] = values

    def put(self, row: Mapping[str, Any]) -> None:
        """Add or replace the row of one search; :meth:`write` puts it into the file."""
        key = tuple(row[column] for column in self._layout.columns[: self._layout.key_length])
        if self._rows.get(key) != row:
            self._rows[key] = row
            self._is_written = False

    def write(self) -> None:
        """Rewrite the file if a row is not in it yet."""
        if self._is_written:
            return
        if any(row["task"] != DEFAULT_TASK for row in self._rows.values()):
            self._columns = self._layout.columns
        lines = [self._layout.line(row, self._columns) for _, row in sorted(self._rows.items())]
        text = ",".join(self._columns) + "\n" + "".join(lines)
        write_whole(self.path, lambda file: file.write(text.encode()))
        self._is_written = True


class ResultsFolder:
    """Logs and results of some models, by name, held under a lock while in use.

    ``variant`` returns the end of the protocol column for a probe. What ``paper`` stands for in
    that column is recorded with the first row (published.py).
    """

    def __init__(
        self,
        folder: Path,
        specs: Collection[ModelSpec],
        variant: Callable[[Probe], str] = lambda probe: "",
    ) -> None:
        self.folder = Path(folder)
        self._papers = {spec.name: spec.paper for spec in specs}
        self._is_recorded = False
        self._lock = FolderLock(self.folder)
        self.logs = {
            s.name: ProbeLog(self._path(s, "probes"), s, variant, self._record) for s in specs
        }
        self.results = {s.name: ResultsTable(self._path(s, "results"), s) for s in specs}

    def _path(self, spec: ModelSpec, kind: str) -> Path:
        return self.folder / f"{spec.name}_{kind}.csv"

    def __enter__(self) -> Self:
        """Create the folder if need be, wait for the lock, read what is there.

        Raises :class:`UserError` for what cannot be read or written, and for a model whose rows
        here were labelled by another published protocol than it has now.
        """
        for log in self.logs.values():
            if log.path.exists():
                require_writable(log.path)
        self._lock.acquire()
        try:
            self._check_record()
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

    def sync(self, at_end: bool = False) -> float:
        """Have the disk store the logs, if it is time; return the seconds until it is, at most.

        See :meth:`~threshold_search.log.probe_log.ProbeLog.sync`.
        """
        return min(log.sync(at_end) for log in self.logs.values())

    def write_results(self) -> None:
        """Write the results of every model that has new ones."""
        for table in self.results.values():
            table.write()

    def __exit__(self, *_: object) -> None:
        """Have the disk store all rows; release the lock."""
        try:
            self.sync(at_end=True)
        finally:
            self._lock.release()

    def _check_record(self) -> None:
        known = published.recorded(self.folder)
        for model, protocol in known.items():
            if found := published.difference(protocol, self._papers.get(model, protocol)):
                raise UserError(
                    f"{self.folder}: what {model}'s rows here call paper has {found} as its "
                    "published protocol has now; use another folder (--results-dir)"
                )
        self._is_recorded = self._papers.keys() <= known.keys()
        self._papers = {**known, **self._papers}

    def _record(self) -> None:
        if not self._is_recorded:
            text = published.text_of(self._papers)
            path = self.folder / published.FILE_NAME
            write_whole(path, lambda file: file.write(text.encode()))
            self._is_recorded = True
