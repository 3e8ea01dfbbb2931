"""The results folder: the append-only probe log, the results derived from it, and their lock."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, Self

from command_line.files import require_writable, write_whole
from threshold_search.log.folder_lock import FolderLock
from threshold_search.log.layout import result_layout
from threshold_search.log.probe_log import ProbeLog
from threshold_search.log.reader import read_rows
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
        self._key_length = self._layout.columns.index("seed") + 1
        self._lines: dict[tuple, str] = {}
        self._is_written = True

    def load(self) -> None:
        """Read the rows that earlier commands left."""
        if self.path.exists():
            for row in read_rows(self.path, self._layout):
                self._lines[self._key(row)] = self._layout.line(row)

    def put(self, row: Mapping[str, Any]) -> None:
        """Add or replace the row of one search; :meth:`write` puts it into the file."""
        key, line = self._key(row), self._layout.line(row)
        if self._lines.get(key) != line:
            self._lines[key] = line
            self._is_written = False

    def write(self) -> None:
        """Rewrite the file if a row is not in it yet."""
        if not self._is_written:
            text = (
                self._layout.header
                + "\n"
                + "".join(line for _, line in sorted(self._lines.items()))
            )
            write_whole(self.path, lambda file: file.write(text.encode()))
            self._is_written = True

    def _key(self, row: Mapping[str, Any]) -> tuple:
        """Return the identity of a row: every column up to ``seed``."""
        return tuple(row[column] for column in self._layout.columns[: self._key_length])


class ResultsFolder:
    """Logs and results of some models, by name, held under a lock while in use.

    ``variant`` returns the end of the protocol column for a probe.
    """

    def __init__(
        self,
        folder: Path,
        specs: Collection[ModelSpec],
        variant: Callable[[Probe], str] = lambda _: "",
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

    def write_results(self) -> None:
        """Write the results of every model that has new ones."""
        for table in self.results.values():
            table.write()

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        self._lock.release()
