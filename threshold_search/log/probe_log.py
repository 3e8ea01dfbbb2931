"""The append-only log of a model's probes: the one state of a search. Imports no torch."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from command_line.files import append_whole, is_plain
from threshold_search.log.layout import probe_layout
from threshold_search.log.reader import BLANK, content_of, parse_table, without_torn_line
from training.bits import BITS_VERSION
from training.errors import UserError
from training.probe import Outcome, Probe
from training.spec import ModelSpec


class ProbeLog:
    """The finished probes of one model, on disk as one row each.

    ``variant`` ends the protocol column: probes of another engine or device are other probes. So
    are those of another bits version, which the log may hold too.
    """

    def __init__(
        self, path: Path, spec: ModelSpec, variant: Callable[[Probe], str] = lambda _: ""
    ) -> None:
        self.path, self._spec, self._variant = path, spec, variant
        self._layout = probe_layout(spec)
        self._key_length = self._layout.columns.index("n") + 1
        self._outcomes: dict[tuple, tuple] = {}  # of an Outcome, which is made when asked for
        self._prefixes: dict[tuple, tuple] = {}
        self._whole_bytes: int | None = None  # length without a torn last line, if there is one
        self._state: tuple[int, ...] | None = None  # of the file as we left it
        self._before_next = self._layout.header + "\n"  # what the file lacks before another row

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
        contradicting = set()
        for row in parse_table(self.path, content, self._layout).rows:
            key, outcome = row[: self._key_length], row[self._key_length :]
            known = self._outcomes.setdefault(key, outcome)
            if known is outcome:
                continue
            if Outcome(*known).memorized != Outcome(*outcome).memorized:
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
        return probe.label + self._variant(probe)

    def get(self, probe: Probe) -> Outcome | None:
        """Return the outcome of a finished probe, or None."""
        found = self._outcomes.get(self._key(probe))
        return None if found is None else Outcome(*found)

    def append(self, finished: Sequence[tuple[Probe, Outcome]]) -> None:
        """Add finished probes in one write, so that a kill leaves at most one torn line.

        A log that was deleted meanwhile is written again, from its first row on. Raises
        :class:`UserError` if it was changed otherwise, or cannot be written.
        """
        rows = {self._key(probe): tuple(vars(outcome).values()) for probe, outcome in finished}
        state = self._file_state()
        if state != self._state and state is not None:
            raise UserError(
                f"{self.path} was changed by something else while the search was writing to it; "
                "nothing more was written, the same command continues from what it holds now"
            )
        lines = [self._before_next]
        if state is None and self._state is not None:
            lines = [
                self._layout.header,
                "\n",
                *(self._line(*row) for row in self._outcomes.items()),
            ]
            print(f"{self.path} was deleted; it is written again", file=sys.stderr)
        lines += [self._line(*row) for row in rows.items()]
        append_whole(self.path, "".join(lines).encode())
        self._before_next = ""
        self._outcomes.update(rows)
        self._state = self._file_state()

    def _line(self, key: tuple, outcome: tuple) -> str:
        return self._layout.line(dict(zip(self._layout.columns, (*key, *outcome), strict=True)))

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
            sizes = probe.architecture.columns().values()
            prefix = (self._spec.name, self.label(probe), BITS_VERSION, *sizes)
            self._prefixes[common] = prefix = (*prefix, probe.repeat, probe.seed)
        return (*prefix, probe.n)
