"""The layout of the CSVs: a probe row, a result row, and how their text becomes values."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from training.spec import ModelSpec
from training.stopping import STOP_REASONS

Parser = Callable[[str], Any]


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{text!r} is neither True nor False")
    return text.lower() == "true"


def _stop_reason(text: str) -> str:
    if text not in STOP_REASONS:
        raise ValueError(f"{text!r} is not a stop reason")
    return text


def _number(kind: type, smallest: float, largest: float) -> Parser:
    def parse(text: str) -> Any:
        value = kind(_without_zeros(text) if kind is int else text)
        if not smallest <= value <= largest:
            raise ValueError(f"{text!r} is out of range")
        return value

    return parse


def _without_zeros(text: str) -> str:
    """Return a whole number's digits, also of one that a spreadsheet stored as 33.0."""
    found = re.fullmatch(r"(\d+)\.0+", text) if "." in text else None
    return found[1] if found else text


# What an int64 holds, also of one more than the number (first_failure is threshold + 1).
LARGEST = 2**63 - 1
_count = _number(int, 0, LARGEST)
_positive = _number(int, 1, LARGEST)
_seconds = _number(float, 0, math.inf)


def _optional_positive(text: str) -> int | None:
    return _positive(text) if text else None


def _protocol(text: str) -> str:
    if text.split(" ")[0] != "paper":
        raise ValueError(f"{text!r} is not a protocol")
    return text


def _exactly(model: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text != model:
            raise ValueError(f"{text!r} is not {model}")
        return text

    return parse


_PROBE_VALUES: dict[str, Parser] = {
    "n": _positive,
    "memorized": _bool,
    "accuracy": _number(float, 0, 1),
    "loss": float,
    "epochs": _positive,
    "stop_reason": _stop_reason,
    "seconds": _seconds,
}
_RESULT_VALUES: dict[str, Parser] = {
    "threshold": _number(int, 0, LARGEST - 1),
    "first_failure": _optional_positive,
    "max_epoch_reached": _bool,
    "probes": _positive,
    "seconds": _seconds,
}


class Layout:
    """Columns of one CSV in order, each with the function that parses its text."""

    def __init__(self, parsers: dict[str, Parser]) -> None:
        self.parsers = parsers
        self.columns = list(parsers)

    @property
    def header(self) -> str:
        """The first line of the file, without its end."""
        return ",".join(self.columns)

    def parse(self, row: list[str]) -> dict[str, Any]:
        """Return the row's values by column; raise ValueError saying what is wrong."""
        if len(row) != len(self.columns):
            raise ValueError(f"{len(row)} fields instead of {len(self.columns)}")
        values = {}
        for (column, parser), text in zip(self.parsers.items(), row, strict=True):
            try:
                values[column] = parser(text)
            except ValueError as error:
                raise ValueError(f"{column}: {error}") from None
        self.check({column: [value] for column, value in values.items()})
        return values

    def check(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Raise ValueError if any row of these parsed columns contradicts itself."""
        if "memorized" in columns:
            pairs = zip(columns["memorized"], columns["accuracy"], strict=True)
            if any(memorized and accuracy != 1.0 for memorized, accuracy in pairs):
                raise ValueError("memorized, but accuracy is not 1")

    def line(self, values: Mapping[str, object]) -> str:
        """Return ``values`` as one CSV line; None becomes an empty field."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values[column] for column in self.columns)
        return text.getvalue()


def _word(text: str) -> str:
    if not text:
        raise ValueError("is empty")
    return text


def _number_or_word(text: str) -> int | str:
    digits = _without_zeros(text)
    is_number = digits.isdecimal() and digits == (digits.lstrip("0") or "0")  # 007 is a word
    return _count(digits) if is_number else _word(text)


_BEFORE: dict[str, Parser] = {"protocol": _protocol, "bits": _count}
_BUDGET: dict[str, Parser] = {"budget": _positive}
_AFTER: dict[str, Parser] = {"repeat": _count, "seed": _count}


def probe_layout(spec: ModelSpec) -> Layout:
    """One row per trained model."""
    return Layout(
        {"model": _exactly(spec.name), **_BEFORE, **_sizes(spec), **_AFTER, **_PROBE_VALUES}
    )


def result_layout(spec: ModelSpec) -> Layout:
    """One row per finished search."""
    before = {"model": _exactly(spec.name), **_BEFORE, **_BUDGET}
    return Layout({**before, **_sizes(spec), **_AFTER, **_RESULT_VALUES})


def _sizes(spec: ModelSpec) -> dict[str, Parser]:
    return {name: _count if kind is int else _word for name, kind in spec.columns.items()}


def probe_layout_of(header: list[str], model: str) -> Layout | None:
    """Return the layout of a probe log of ``model``, whatever its sizes are; None: it is none."""
    return _layout_of(header, {"model": _exactly(model), **_BEFORE}, {**_AFTER, **_PROBE_VALUES})


def result_layout_of(header: list[str], model: str) -> Layout | None:
    """Return the layout of a results file likewise."""
    before = {"model": _exactly(model), **_BEFORE, **_BUDGET}
    return _layout_of(header, before, {**_AFTER, **_RESULT_VALUES})


def _layout_of(
    header: list[str], before: dict[str, Parser], after: dict[str, Parser]
) -> Layout | None:
    sizes: dict[str, Parser] = dict.fromkeys(
        header[len(before) : len(header) - len(after)], _number_or_word
    )
    layout = Layout({**before, **sizes, "num_parameters": _count, **after})
    return layout if layout.columns == header and [*sizes][:1] == ["num_parameters"] else None
