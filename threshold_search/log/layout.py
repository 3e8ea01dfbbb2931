"""The layout of the CSVs: a probe row, a result row, and how their text becomes values."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from training.protocol import Protocol, parse_label
from training.spec import TASK, ModelSpec
from training.stopping import STOP_REASONS

Parser = Callable[[str], Any]
DEFAULT_TASK = Protocol().task  # of every row in a file without columns for it


def task_columns(protocol: Protocol) -> dict[str, Any]:
    """Return what a row says of its task: the name, and the sizes of an input and a label."""
    task = protocol.make_task()
    return {"task": protocol.task, **{name: getattr(task, name) for name in TASK}}


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


def _word(text: str) -> str:
    if not text:
        raise ValueError("is empty")
    return text


def _number_or_word(text: str) -> int | str:
    digits = _without_zeros(text)
    is_number = digits.isdecimal() and digits == (digits.lstrip("0") or "0")  # 007 is a word
    return _count(digits) if is_number else _word(text)


_TASK: dict[str, Parser] = {"task": _word, **dict.fromkeys(TASK, _positive)}
_PROBE: dict[str, Parser] = {
    "memorized": _bool,
    "accuracy": _number(float, 0, 1),
    "loss": float,
    "epochs": _positive,
    "stop_reason": _stop_reason,
    "seconds": _seconds,
}
_RESULT: dict[str, Parser] = {
    "threshold": _number(int, 0, LARGEST - 1),
    "first_failure": lambda text: _positive(text) if text else None,
    "max_epoch_reached": _bool,
    "probes": _positive,
    "seconds": _seconds,
}


class Layout:
    """Columns of one CSV of a model, in order, each with the function that parses its text.

    The first ``key_length`` columns are a row's identity. Files from before there was more than one
    task have ``old_columns``: all but those of the task, which follow from a row's protocol.
    """

    def __init__(
        self, model: str, sizes: Mapping[str, Parser], published: Protocol, is_log: bool
    ) -> None:
        self._model, self._published = model, published
        budget = {} if is_log else {"budget": _positive}
        identity = {"model": self._name, "protocol": self._label, "bits": _count, **budget}
        identity |= {**_TASK, "num_parameters": _count, **sizes, "repeat": _count, "seed": _count}
        if is_log:
            identity["n"] = _positive
        self._parsers: dict[str, Parser] = {**identity, **(_PROBE if is_log else _RESULT)}
        self.key_length = len(identity)
        self.columns = list(self._parsers)
        self.old_columns = [name for name in self.columns if name not in _TASK]
        self.has_unique_rows = not is_log  # logs of several folders may have met in one

    @property
    def header(self) -> str:
        """The first line of a new file, without its end."""
        return ",".join(self.columns)

    def parse(self, columns: Sequence[str], rows: Sequence[list[str]]) -> list[tuple[Any, ...]]:
        """Return the values of ``rows``, texts of ``columns``, in the order of all columns.

        By column, each of its texts once: most columns of a log have few. Raises ValueError saying
        what is wrong with a row.
        """
        for row in rows:
            if len(row) != len(columns):
                raise ValueError(f"{len(row)} fields instead of {len(columns)}")
        values = {}
        for column, texts in zip(columns, zip(*rows, strict=True), strict=True):
            parser = self._parsers[column]
            try:
                parsed = {text: parser(text) for text in set(texts)}
            except ValueError as error:
                raise ValueError(f"{column}: {error}") from None
            values[column] = list(map(parsed.__getitem__, texts))
        if "task" not in values:
            labels = values["protocol"]
            tasks = {
                text: task_columns(parse_label(text, self._published).protocol)
                for text in set(labels)
            }
            values |= {name: [tasks[text][name] for text in labels] for name in _TASK}
        if "memorized" in values:
            pairs = zip(values["memorized"], values["accuracy"], strict=True)
            if any(memorized and accuracy != 1.0 for memorized, accuracy in pairs):
                raise ValueError("memorized, but accuracy is not 1")
        else:
            pairs = zip(values["threshold"], values["first_failure"], strict=True)
            if any(failure not in (None, threshold + 1) for threshold, failure in pairs):
                raise ValueError("threshold and first_failure disagree")
        return list(zip(*(values[name] for name in self.columns), strict=True))

    def line(self, values: Mapping[str, object], columns: Sequence[str] | None = None) -> str:
        """Return a row as one line of a CSV, by default with all columns; None is empty."""
        text = io.StringIO()
        wanted = self.columns if columns is None else columns
        csv.writer(text, lineterminator="\n").writerow(values[name] for name in wanted)
        return text.getvalue()

    def _name(self, text: str) -> str:
        if text != self._model:
            raise ValueError(f"{text!r} is not {self._model}")
        return text

    def _label(self, text: str) -> str:
        parse_label(text, self._published)
        return text


def probe_layout(spec: ModelSpec) -> Layout:
    """One row per trained model."""
    return Layout(spec.name, _sizes(spec), spec.paper, is_log=True)


def result_layout(spec: ModelSpec) -> Layout:
    """One row per finished search."""
    return Layout(spec.name, _sizes(spec), spec.paper, is_log=False)


def _sizes(spec: ModelSpec) -> dict[str, Parser]:
    return {name: _count if kind is int else _word for name, kind in spec.sizes.items()}


def layout_of(model: str, published: Protocol, is_log: bool, header: Sequence[str]) -> Layout:
    """Return the layout of a probe log or results file of ``model``, whatever its sizes are.

    Another header than that of such a file has none of the layout's columns or old columns.
    """
    fixed = Layout(model, {}, published, is_log).columns
    sizes = dict.fromkeys((name for name in header if name not in fixed), _number_or_word)
    return Layout(model, sizes, published, is_log)
