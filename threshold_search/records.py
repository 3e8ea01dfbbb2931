"""The layout of the CSVs: a probe row, a result row, and how their text becomes values."""

from __future__ import annotations

import csv
import io
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


def _optional_int(text: str) -> int | None:
    return int(text) if text else None


_PROBE_VALUES = {
    "n": int,
    "memorized": _bool,
    "accuracy": float,
    "loss": float,
    "epochs": int,
    "stop_reason": _stop_reason,
    "seconds": float,
}
_RESULT_VALUES = {
    "threshold": int,
    "first_failure": _optional_int,
    "max_epoch_reached": _bool,
    "probes": int,
    "seconds": float,
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
        return values

    def line(self, values: Mapping[str, object]) -> str:
        """Return ``values`` as one CSV line; None becomes an empty field."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(values[column] for column in self.columns)
        return text.getvalue()


def _layout(model: str, budget: bool, values: dict[str, Callable[[str], object]]) -> Layout:
    return Layout(
        {
            "model": str,
            "protocol": str,
            **({"budget": int} if budget else {}),
            **dict.fromkeys(ARCHITECTURE_COLUMNS[model], int),
            "repeat": int,
            "seed": int,
            **values,
        }
    )


def probe_layout(model: str) -> Layout:
    """One row per trained model."""
    return _layout(model, False, _PROBE_VALUES)


def result_layout(model: str) -> Layout:
    """One row per finished search."""
    return _layout(model, True, _RESULT_VALUES)
