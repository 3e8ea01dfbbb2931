"""The one reader of a results folder: every row of every model as a data frame. No torch.

    searches = load_results("results")
    probes = load_probes("results")

Models need not be registered: the columns between ``num_parameters`` and ``repeat`` are whatever
sizes the file has.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from threshold_search.log.layout import Layout, probe_layout_of, result_layout_of
from threshold_search.log.reader import read_rows
from threshold_search.log.results_folder import DEFAULT_FOLDER
from training.bits import BITS_VERSION
from training.errors import UserError

PAPER_PROTOCOL = "paper"

Row = Mapping[str, Any]
LayoutOf = Callable[..., Layout | None]  # (header, model=)

_IDENTITY = {"model": "str", "protocol": "str", "bits": "Int64"}
_REPEAT = {"repeat": "Int64", "seed": "Int64"}
_PROBE = {
    "n": "Int64",
    "memorized": "bool",
    "accuracy": "float64",
    "loss": "float64",
    "epochs": "Int64",
    "stop_reason": "str",
    "seconds": "float64",
}
_RESULT = {
    "threshold": "Int64",
    "first_failure": "Int64",
    "max_epoch_reached": "bool",
    "probes": "Int64",
    "seconds": "float64",
    "capped": "bool",
}


def load_probes(folder: Path | str = DEFAULT_FOLDER) -> pd.DataFrame:
    """Return one row per trained model: every ``*_probes.csv`` of ``folder``, models by name.

    Columns as in the files (results/README.md): identity, sizes, outcome. ``n`` is in sequences,
    ``loss`` in nats per token, ``seconds`` in seconds. Every protocol and bits version is there. A
    size that a model lacks is NA; whole numbers are nullable integers (Int64). No rows if the
    folder has no such file. A log merged of several may have a probe more than once, as the file.

    Raises :class:`UserError` for a folder that does not exist and for a malformed file. A last line
    that a crash left unfinished is malformed until the next search drops it.
    """
    rows = [row for rows in _files(folder, "_probes.csv", probe_layout_of) for row in rows]
    return _frame(rows, _IDENTITY, {**_REPEAT, **_PROBE})


def load_results(folder: Path | str = DEFAULT_FOLDER) -> pd.DataFrame:
    """Return one row per finished search: every ``*_results.csv`` of ``folder``, models by name.

    Columns as in the files, typed as in :func:`load_probes`, and ``capped``: whether the search
    reached its size limit without a failure. ``threshold`` and ``first_failure`` are in sequences;
    of a capped search ``first_failure`` is ``threshold`` + 1, which is then a lower bound.

    Raises :class:`UserError` for a folder that does not exist, a malformed file, a search that is
    there twice, and a ``first_failure`` that is not ``threshold`` + 1.
    """
    found: list[Row] = []
    for rows in _files(folder, "_results.csv", result_layout_of, _SearchCheck):
        found += rows
    return results_frame(found)


def results_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Return rows of MODEL_results.csv, of any models, as :func:`load_results` does."""
    completed = []
    for row in rows:
        capped = bool(pd.isna(row["first_failure"]))
        first_failure = row["threshold"] + 1
        completed.append({**row, "first_failure": first_failure, "capped": capped})
    return _frame(completed, {**_IDENTITY, "budget": "Int64"}, {**_REPEAT, **_RESULT})


def configuration_columns(results: pd.DataFrame) -> list[str]:
    """Return the columns that the repeats of a search have in common: those before ``repeat``.

    They are ``model``, ``protocol``, ``bits``, ``budget``, ``num_parameters`` and the sizes.
    """
    columns = list(results.columns)
    return columns[: columns.index("repeat")]


def select(
    results: pd.DataFrame, protocol: str = PAPER_PROTOCOL, bits: int = BITS_VERSION
) -> pd.DataFrame:
    """Return the rows of exactly this protocol and bits version, by default the current ones."""
    return results[(results["protocol"] == protocol) & (results["bits"] == bits)]


def _files(
    folder: Path | str,
    suffix: str,
    layout_of: LayoutOf,
    new_check: Callable[[], Callable[[Row], None]] = lambda: lambda row: None,
) -> Iterator[Sequence[Row]]:
    """Yield the rows of every CSV whose name is a model's and ``suffix``.

    ``new_check`` makes, for each file, what raises ValueError for a bad row.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(f"no results folder {folder}")
    for path in sorted(folder.glob(f"?*{suffix}")):
        model = path.name.removesuffix(suffix)
        yield read_rows(path, functools.partial(layout_of, model=model), new_check())


class _SearchCheck:
    """Refuses a search that contradicts itself or was there before in the same file."""

    def __init__(self) -> None:
        self._seen: set[tuple] = set()

    def __call__(self, row: Row) -> None:
        columns = list(row)
        search = tuple(row[column] for column in columns[: columns.index("threshold")])
        if row["first_failure"] not in (None, row["threshold"] + 1):
            raise ValueError("threshold and first_failure disagree")
        if search in self._seen:
            raise ValueError("repeats an earlier search")
        self._seen.add(search)


def _frame(rows: Sequence[Row], before: dict[str, str], after: dict[str, str]) -> pd.DataFrame:
    """Return the rows with typed columns: ``before``, the sizes of all models, ``after``."""
    fixed = {**before, "num_parameters": "Int64", **after}
    sizes = list(dict.fromkeys(name for row in rows for name in row if name not in fixed))
    columns = [*before, "num_parameters", *sizes, *after]
    # Object columns until each has its type: a NaN among whole numbers would make them floats.
    frame = pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=object) for name in columns}
    )
    for size in sizes:
        values = frame[size].dropna()
        if values.map(lambda value: isinstance(value, int)).all():
            fixed[size] = "Int64"
        else:
            frame[size] = frame[size].map(str, na_action="ignore").astype("str")
    return frame.astype(fixed)
