"""The layout of the CSVs: a probe row, a result row, and how their text becomes values."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping

from training.stopping import STOP_REASONS

ARCHITECTURE_COLUMNS = {
    "mlp": ("num_parameters", "hidden_size", "num_layers"),
    "transformer": ("num_parameters", "hidden_size", "d_ff", "num_heads", "num_layers"),
}
MODELS = tuple(ARCHITECTURE_COLUMNS)


def _bool(text: str) -> bool:
    if text not in ("True", "False"):
        raise ValueError(f"{text!r} is neither True nor False")
    return text == "True"


def _stop_reason(text: str) -> str:
    if text not in STOP_REASONS:
        raise ValueError(f"{text!r} is not a stop reason")
    return text


def _number(kind: type, smallest: float, largest: float = math.inf) -> Callable[[str], object]:
    def parse(text: str) -> object:
        value = kind(text)
        if not smallest <= value <= largest:
            raise ValueError(f"{text} is out of range")
        return value

    return parse


_count = _number(int, 0)
_positive = _number(int, 1)
_seconds = _number(float, 0)


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


_PROBE_VALUES = {
    "n": _positive,
    "memorized": _bool,
    "accuracy": _number(float, 0, 1),
    "loss": float,
    "epochs": _positive,
    "stop_reason": _stop_reason,
    "seconds": _seconds,
}
_RESULT_VALUES = {
    "threshold": _count,
    "first_failure": _optional_positive,
    "max_epoch_reached": _bool,
    "probes": _positive,
    "seconds": _seconds,
}


class Layout:
    """Columns of one CSV in order, each with the function that parses its text."""

    def __init__(self, parsers: dict[str, Callable[[str], object]]) -> None:
        self.parsers = parsers
        self.columns = list(parsers)

    @property
    def header(self) -> str:
        """The first line of the file, without its end."""
        return ",".join(self.columns)

    def parse(self, row: list[str]) -> dict[str, object]:
        """Return the row's values by column; raise ValueError saying what is wrong."""
        if len(row) != len(self.columns):
            raise ValueError(f"{len(row)} fields instead of {len(self.columns)}")
        values = {}
        for (column, parser), text in zip(self.parsers.items(), row, strict=True):
            try:
                values[column] = parser(text)
            except ValueError as error:
                raise ValueError(f"{column}: {error}") from None
        if values.get("memorized") and values["accuracy"] != 1.0:
            raise ValueError("memorized, but accuracy is not 1")
        return values

    def line(self, values: Mapping[str, object]) -> str:
        """Return ``values`` as one CSV line; None becomes an empty field."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values[column] for column in self.columns)
        return text.getvalue()


def _layout(model: str, budget: bool, values: dict[str, Callable[[str], object]]) -> Layout:
    return Layout(
        {
            "model": _exactly(model),
            "protocol": _protocol,
            "bits": _count,
            **({"budget": _positive} if budget else {}),
            **dict.fromkeys(ARCHITECTURE_COLUMNS[model], _count),
            "repeat": _count,
            "seed": _count,
            **values,
        }
    )


def probe_layout(model: str) -> Layout:
    """One row per trained model."""
    return _layout(model, False, _PROBE_VALUES)


def result_layout(model: str) -> Layout:
    """One row per finished search."""
    return _layout(model, True, _RESULT_VALUES)
