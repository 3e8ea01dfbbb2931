"""Merge the logs of several results folders, such as those of a job array's shards, into one.

    python threshold_search/merge_logs.py OUT IN...

OUT keeps what it has. Of rows that differ in their seconds alone one stays; rows that contradict
one another all stay and are named. Nothing is written if any row is malformed. Then the command of
the shards, without --shard, run in OUT, trains what is still missing and writes the results.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

if __name__ == "__main__":  # this checkout's code, whichever one the environment has installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from command_line.parser import begin

    begin()

from command_line.files import require_writable, write_whole
from command_line.parser import Parser, run, user_path
from threshold_search.log import published
from threshold_search.log.folder_lock import FolderLock
from threshold_search.log.layout import Layout, layout_of
from threshold_search.log.reader import Table, content_of, parse_table, without_torn_line
from threshold_search.log.run_record import RECORD_NAME
from threshold_search.models import MODELS
from training.errors import UserError
from training.protocol import Protocol

SUFFIX = "_probes.csv"
LOCKS = "results*.lock"  # of every kind that a search takes
NAMED = 5  # contradictions that are named, at most


@dataclass
class MergedLog:
    """The rows of some logs of one model, each once."""

    name: str
    layout: Layout
    files: int = 0
    rows: int = 0
    # By the row's identity, up to n: each answer with its line and the file that had it.
    answers: dict[tuple[Any, ...], dict[str, tuple[str, Path]]] = field(default_factory=dict)

    def add(self, path: Path, table: Table) -> None:
        """Take every row of the log that ``path`` holds."""
        layout = table.layout
        if self.layout.columns != layout.columns:
            raise UserError(f"{path} has other columns than another {self.name} of these folders")
        self.files += 1
        self.rows += len(table.rows)
        for row in table.rows:
            line = layout.line(dict(zip(layout.columns, row, strict=True)))
            answer = line.rpartition(",")[0]  # all but the seconds
            answers = self.answers.setdefault(row[: layout.key_length], {})
            # The one that a search takes, whatever the order of the folders.
            answers[answer] = min(answers.get(answer, (line, path)), (line, path))

    @property
    def text(self) -> str:
        """The log, in an order that does not depend on that of the files."""
        keys = sorted(self.answers, key=lambda key: [(isinstance(v, str), v) for v in key])
        lines = [line for key in keys for line, _ in sorted(self.answers[key].values())]
        return self.layout.header + "\n" + "".join(lines)

    def report(self) -> list[str]:
        """Return what to say of it: how much there is, and what contradicts itself."""
        contradicting = {key: found for key, found in self.answers.items() if len(found) > 1}
        kept = sum(len(found) for found in self.answers.values())
        lines = [
            f"{self.name}: {len(self.answers)} probes from {self.rows} rows of {self.files} files; "
            f"{self.rows - kept} duplicate rows, {len(contradicting)} contradictions"
        ]
        for key, found in list(contradicting.items())[:NAMED]:
            identity = zip(self.layout.columns, key, strict=False)
            probe = " ".join(f"{column}={value}" for column, value in identity)
            files = ", ".join(sorted({str(path) for _, path in found.values()}))
            lines.append(f"contradiction: {probe} in {files}; the row that sorts first counts")
        return lines


def merge(out: Path, folders: Sequence[Path]) -> list[str]:
    """Merge the logs and records of ``folders`` into ``out``; return lines that report it.

    Raises :class:`UserError` for a folder that is none or that no search has written to, for a
    malformed row, by file and line, and for folders whose labels mean other protocols; then nothing
    is written.
    """
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"no results folder {folder}")
        if not any(folder.glob(f"?*{SUFFIX}")):
            if not (folder / RECORD_NAME).exists() and not any(folder.glob(LOCKS)):
                raise UserError(f"no probe log (?*{SUFFIX}) in {folder}")
            # Of a search that ended before its first probe did: what it lacks is trained later.
            print(f"note: {folder} has no probe yet", file=sys.stderr)
    sources = {folder.resolve(): folder for folder in folders if folder.resolve() != out.resolve()}
    papers = _papers([out, *sources.values()])
    logs: dict[str, MergedLog] = {}
    entries: set[str] = set()
    for folder in sources.values():
        _read(folder, papers, logs, entries)
    lock = FolderLock(out)  # only now: what is refused leaves nothing
    lock.acquire()
    try:
        _read(out, papers, logs, entries)
        files = {name: log.text for name, log in logs.items()}
        if entries:
            files[RECORD_NAME] = "".join(sorted(entries))  # by their time, which they begin with
        if papers:
            files[published.FILE_NAME] = published.text_of(papers)
        for name in files:
            require_writable(out / name)
        for name, text in files.items():
            write_whole(out / name, functools.partial(_write, text.encode()))
    finally:
        lock.release()
    return [line for log in logs.values() for line in log.report()]


def _write(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def _papers(folders: Sequence[Path]) -> dict[str, Protocol]:
    """Return what paper stands for in the labels of all folders; raise UserError if it differs."""
    papers: dict[str, Protocol] = {}
    for folder in folders:
        known = {m: MODELS[m].paper for m in MODELS if (folder / f"{m}{SUFFIX}").exists()}
        for model, paper in {**known, **published.recorded(folder)}.items():
            if found := published.difference(paper, papers.setdefault(model, paper)):
                raise UserError(
                    f"{folder}: what {model}'s rows there call paper has {found} as in another "
                    "of these folders"
                )
    return papers


def _read(
    folder: Path, papers: Mapping[str, Protocol], logs: dict[str, MergedLog], entries: set[str]
) -> None:
    """Add the folder's rows to ``logs``, and what its run record has to ``entries``.

    A last line that a crash left unfinished is left out.
    """
    for path in sorted(folder.glob(f"?*{SUFFIX}")):
        content, is_torn = without_torn_line(content_of(path), "")
        if is_torn:
            _say_torn(path)
        if content:
            model = path.name.removesuffix(SUFFIX)
            paper = published.of_model(model, papers)
            table = parse_table(path, content, functools.partial(layout_of, model, paper, True))
            logs.setdefault(path.name, MergedLog(path.name, table.layout)).add(path, table)
    path = folder / RECORD_NAME
    if path.exists():
        # What no line end follows is torn, as in a log, even where it is all there is.
        whole, _, torn = content_of(path).decode("utf-8", "replace").rpartition("\n")
        if torn:
            _say_torn(path)
        entries |= {line + "\n" for line in whole.splitlines() if line}


def _say_torn(path: Path) -> None:
    print(f"{path}: an unfinished last line is left out", file=sys.stderr)


def main() -> None:
    """Read the folders, merge, report."""
    parser = Parser(__doc__)
    parser.add_argument("out", type=user_path, metavar="OUT", help="results folder to merge into")
    parser.add_argument(
        "folders", type=user_path, metavar="IN", nargs="+", help="results folders to read"
    )
    args = parser.parse_args()
    for line in merge(args.out, args.folders):
        print(line, file=sys.stderr if line.startswith("contradiction") else sys.stdout)


if __name__ == "__main__":
    run(main)
