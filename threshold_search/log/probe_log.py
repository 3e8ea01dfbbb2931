"""The append-only log of a model's probes: the one state of a search. Imports no torch."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from command_line.files import append_whole, is_plain, sync, write_whole
from threshold_search.log.layout import DEFAULT_TASK, probe_layout, task_columns
from threshold_search.log.reader import BLANK, content_of, parse_table, without_torn_line
from training.errors import UserError
from training.probe import BITS_VERSION, Outcome, Probe
from training.spec import ModelSpec

SYNC_SECONDS = 0.5  # between two times that the disk has to store the log


class ProbeLog:
    """The finished probes of one model, on disk as one row each.

    ``variant`` ends the protocol column: probes of another engine or device are other probes. So
    are those of another bits version, which the log may hold too. ``before_writing`` is called
    before rows are written.
    """

    def __init__(
        self,
        path: Path,
        spec: ModelSpec,
        variant: Callable[[Probe], str] = lambda probe: "",
        before_writing: Callable[[], None] = lambda: None,
    ) -> None:
        self.path, self._spec, self._variant = path, spec, variant
        self._before_writing = before_writing
        self._layout = probe_layout(spec)
        self._columns = self._layout.columns  # of the file: an old one has fewer
        self._task_at = self._columns.index("task")
        self._outcomes: dict[tuple, tuple] = {}  # of an Outcome, which is made when asked for
        self._prefixes: dict[tuple, tuple] = {}
        self._whole_bytes: int | None = None  # length without a torn last line, if there is one
        self._state: tuple[int, ...] | None = None  # of the file as we left it
        self._before_next = self._layout.header + "\n"  # what the file lacks before another row
        self._is_stored, self._is_name_stored = True, True  # on the disk, whatever the power does
        self._stored_at = -math.inf

    def load(self) -> None:
        """Read the log up to a last line that a crash left unfinished; change nothing yet."""
        if not self.path.exists():
            return
        content, is_torn = without_torn_line(content_of(self.path), self._layout.header)
        if is_torn:
            self._whole_bytes = len(content)
        if not content.strip(BLANK):
            # A blank file loses what it has: what is written next has to begin it.
            if is_plain(self.path) and self.path.stat().st_size > 0:
                self._whole_bytes = 0
            return
        self._before_next = "" if content.endswith((b"\n", b"\r")) else "\n"
        table = parse_table(self.path, content, self._layout)
        self._columns = table.columns
        contradicting = set()
        for row in table.rows:
            key, outcome = row[: self._layout.key_length], row[self._layout.key_length :]
            known = self._outcomes.setdefault(key, outcome)
            if known is outcome:
                continue
            if Outcome(*known).memorized != Outcome(*outcome).memorized:
                contradicting.add(key)
            # Of several rows of one probe the first in this order counts, wherever it stands.
            self._outcomes[key] = min(known, outcome, key=lambda o: self._line((*key, *o)))
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
        return probe.label + self._variant(probe)

    def get(self, probe: Probe) -> Outcome | None:
        """Return the outcome of a finished probe, or None."""
        found = self._outcomes.get(self._key(probe))
        return None if found is None else Outcome(*found)

    def append(self, finished: Sequence[tuple[Probe, Outcome]]) -> None:
        """Add finished probes in one write, so that a kill leaves at most one torn line.

        A log that was deleted meanwhile is written again, from its first row on. One with the old
        columns gets the new ones with the first row that needs them. Raises :class:`UserError` if
        it was changed otherwise, or cannot be written.
        """
        rows = {self._key(probe): tuple(vars(outcome).values()) for probe, outcome in finished}
        state = self._file_state()
        if state != self._state and state is not None:
            raise UserError(
                f"{self.path} was changed by something else while the search was writing to it; "
                "nothing more was written, the same command continues from what it holds now"
            )
        self._before_writing()
        before: Sequence[tuple] | None = None  # rows to write again
        if state is None and self._state is not None:
            before = [(*key, *outcome) for key, outcome in self._outcomes.items()]
            print(f"{self.path} was deleted; it is written again", file=sys.stderr)
        elif "task" not in self._columns and any(
            key[self._task_at] != DEFAULT_TASK for key in rows
        ):
            before = parse_table(self.path, content_of(self.path), self._layout).rows
        if before is not None:
            self._columns = self._layout.columns
            lines = [self._layout.header + "\n", *map(self._line, before)]
        else:
            lines = [self._before_next]
        lines += [self._line((*key, *outcome)) for key, outcome in rows.items()]
        content = "".join(lines).encode()
        if before is None:
            append_whole(self.path, content)
        else:
            write_whole(self.path, lambda file: file.write(content))
        self._before_next = ""
        self._outcomes.update(rows)
        self._is_stored = False
        self._is_name_stored &= state is not None and before is None
        self._state = self._file_state()

    def sync(self, at_end: bool = False) -> float:
        """Have the disk store the rows, if the last time is SYNC_SECONDS ago, or ``at_end``.

        Returns the seconds until it has to be called again: infinity if there is nothing to store.
        """
        if self._is_stored:
            return math.inf
        now = time.monotonic()
        if now < self._stored_at + SYNC_SECONDS and not at_end:
            return self._stored_at + SYNC_SECONDS - now
        sync(self.path, with_folder=not self._is_name_stored)
        self._is_stored, self._is_name_stored, self._stored_at = True, True, time.monotonic()
        return math.inf

    def _line(self, row: tuple) -> str:
        values = dict(zip(self._layout.columns, row, strict=True))
        return self._layout.line(values, self._columns)

    def _file_state(self) -> tuple[int, ...] | None:
        """Return what tells whether the file is still the one we left, or None without one."""
        try:
            found = os.stat(self.path)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino, found.st_size

    def _key(self, probe: Probe) -> tuple:
        """Return the identity of the probe's row: every column up to ``n``."""
        common = (probe.architecture, probe.protocol, probe.repeat, probe.seed, probe.attempt)
        prefix = self._prefixes.get(common)
        if prefix is None:
            task = task_columns(probe.protocol).values()
            sizes = probe.architecture.columns().values()
            prefix = (self._spec.name, self.label(probe), BITS_VERSION, *task, *sizes)
            self._prefixes[common] = prefix = (*prefix, probe.repeat, probe.seed)
        return (*prefix, probe.n)
