"""Reads the project's CSVs: whole columns at once, mistakes by their line. Imports no torch."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command_line.files import is_plain
from threshold_search.log.layout import Layout
from training.errors import UserError

Row = dict[str, Any]
LayoutOf = Callable[[Sequence[str]], Layout]  # of the header's columns
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
PIECE = 2000  # rows that are parsed at once
BLANK = BYTE_ORDER_MARK + b"\r\n\t ,"  # all that a spreadsheet writes of an empty sheet


@dataclass(frozen=True)
class Table:
    """What a CSV holds: its own columns and, of every row, the values of all the layout's."""

    layout: Layout
    columns: list[str]
    rows: list[tuple[Any, ...]]


def read_rows(path: Path, layout: Layout | LayoutOf) -> list[Row]:
    """Return the rows of a CSV by column; raise :class:`UserError` as :func:`parse_table` does.

    A blank file has no rows.
    """
    content = content_of(path)
    if not content:
        return []
    table = parse_table(path, content, layout)
    return [dict(zip(table.layout.columns, row, strict=True)) for row in table.rows]


def content_of(path: Path) -> bytes:
    """Return the bytes of ``path``, none if it is blank.

    A device or pipe is an output: there is nothing to read.
    """
    try:
        content = path.read_bytes() if path.is_dir() or is_plain(path) else b""
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    return content if content.strip(BLANK) else b""


def without_torn_line(content: bytes, header: str) -> tuple[bytes, bool]:
    """Return ``content`` up to a last line that a crash left unfinished; whether there is one.

    A file without any whole line is cut only where it has the beginning of ``header``: something
    else's content is no torn line of ours.
    """
    whole = content[: max(content.rfind(b"\n"), content.rfind(b"\r")) + 1]
    torn = content[len(whole) :].removeprefix(BYTE_ORDER_MARK)
    if torn and (whole.strip(BLANK) or header.encode().startswith(torn)):
        return whole, True
    return content, False


def parse_table(path: Path, content: bytes, layout: Layout | LayoutOf) -> Table:
    """Return the table in ``content``, which is not blank.

    ``layout`` is what the file must have, or a function that finds it by the header. Raises
    :class:`UserError` for another one, and for a bad row by its line, as an editor counts it.
    """
    fields_of = _fields(path, content)
    _, header = next(fields_of, (0, []))  # none where a line has white space alone
    found = layout if isinstance(layout, Layout) else layout(header)
    if header not in (found.columns, found.old_columns):
        raise UserError(
            f"{path} has another layout: its first line is not this version's; "
            "move it away, or use another folder (--results-dir)"
        )
    rows: list[tuple[Any, ...]] = []
    lines: list[int] = []
    while piece := list(itertools.islice(fields_of, PIECE)):
        try:
            rows += found.parse(header, [fields for _, fields in piece])
        except ValueError:
            for line, fields in piece:  # which is it?
                try:
                    found.parse(header, [fields])
                except ValueError as error:
                    raise UserError(f"{path} line {line}: {error}") from None
            raise
        lines += [line for line, _ in piece]
    if found.has_unique_rows:
        seen: set[tuple[Any, ...]] = set()
        for line, row in zip(lines, rows, strict=True):
            if row[: found.key_length] in seen:
                raise UserError(f"{path} line {line}: repeats an earlier search")
            seen.add(row[: found.key_length])
    return Table(found, header, rows)


def _fields(path: Path, content: bytes) -> Iterator[tuple[int, list[str]]]:
    """Yield the texts of the header and of every row, each with the number of its last line.

    Blank lines and empty fields at the end of lines are none: both are what spreadsheets write, as
    are a byte-order mark, TRUE and 33.0.
    """
    width = 0  # of the header
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
        for fields in reader:
            if not (0 < width == len(fields) and fields[0].strip()):
                if not any(field.strip() for field in fields):
                    continue
                while len(fields) > width and not fields[-1]:
                    fields.pop()
                width = width or len(fields)
            yield reader.line_num, fields
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path} is not a readable CSV: {error}") from None
