"""Our thresholds beside the published ones. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from threshold_search.log.layout import task_columns
from training.protocol import Protocol
from training.spec import ModelSpec
from visualizations.markdown import counted
from visualizations.summary import OURS, PUBLISHED, beside_published, bits_per_parameter, summarize

PUBLISHED_TABLES = Path(__file__).parent / "published_tables.csv"
TOLERANCE = 0.01  # of a budget: how far the true number of parameters may be from it

LINEAR_PROGRAM = "paper engine=linear-program"  # in the protocol column

Row = Mapping[Any, Any]  # of columns to values

_NAMES = {
    "budget_label": "budget",
    "true_parameters": "num_parameters",
    "mean_threshold": "published_mean",
    "median_threshold": "published_median",
    "std_threshold": "published_std",
}
SIZES = ("hidden_size", "d_ff", "num_heads", "num_layers")
_KEYS = ["model", "budget", "num_parameters", *SIZES]


def published() -> pd.DataFrame:
    """Return the published rows, models and sizes named as in study/published_tables.csv.

    Columns: ``table``, its number in the paper; ``model``; the task; ``budget``, the label of the
    row; ``num_parameters``, the true count; the sizes, NA (of Int64) where a model lacks one;
    ``published_mean``, ``published_median`` and ``published_std`` of the first failing size over
    five repeats, in sequences.
    """
    types = dict.fromkeys(["table", *_KEYS], "Int64") | {"model": "str"}
    table = pd.read_csv(PUBLISHED_TABLES).rename(columns=_NAMES)
    table = table[["table", *_KEYS, *PUBLISHED]].astype(types | dict.fromkeys(PUBLISHED, "float"))
    return table.assign(**task_columns(Protocol()))


def with_published(searches: pd.DataFrame) -> pd.DataFrame:
    """Return ``searches`` with ``published_mean``, ``published_median`` and ``published_std``.

    ``searches`` are rows of :func:`~visualizations.results.load_results`. The published numbers
    belong to a budget, sizes and the published task, so they also stand beside searches whose
    protocol differs in other settings; elsewhere they are NaN. In sequences.
    """
    table = _join(searches, published(), PUBLISHED)
    of_task = task_columns(Protocol())
    is_another = (table[[*of_task]] != pd.Series(of_task)).any(axis=1)
    table.loc[is_another, list(PUBLISHED)] = math.nan
    return table


def every_published_row(searches: pd.DataFrame) -> pd.DataFrame:
    """Return one row per published row, in the paper's order, whether it was measured or not.

    ``searches`` are those of one protocol and bits version, with the published task
    (:func:`~visualizations.results.select`); they count only under the budget they were asked for,
    and repeats of different base seeds are pooled. Columns: those of :func:`published`;
    ``repeats``, 0 where nothing was measured; ``ours_*`` and ``capped`` as in
    :func:`~visualizations.summary.beside_published`; ``threshold_mean``, the mean of the largest
    sizes memorized, in sequences; ``bits_per_parameter`` of it; ``ratio``, ours_mean /
    published_mean. What was not measured is NaN. Where ``capped`` is not 0 our mean is a lower
    bound.
    """
    ours = summarize(searches).rename(columns=OURS)
    table = _join(published(), ours, list(OURS.values()))
    for count in ("repeats", "capped"):
        table[count] = table[count].fillna(0).astype("int64")
    table = _with_bits(table)
    table["ratio"] = table["ours_mean"] / table["published_mean"]
    return table


def every_configuration(searches: pd.DataFrame) -> pd.DataFrame:
    """Return one row per configuration and protocol of ``searches``, published or not.

    Columns: those of :func:`~visualizations.summary.beside_published`; ``threshold_mean``, the mean
    of the largest sizes memorized, in sequences; ``bits_per_parameter`` of it.
    """
    return _with_bits(beside_published(with_published(searches)))


def _with_bits(table: pd.DataFrame) -> pd.DataFrame:
    memorized = table["ours_mean"] - 1  # of every search first_failure is one more
    bits = bits_per_parameter(memorized, table)
    return table.assign(threshold_mean=memorized, bits_per_parameter=bits)


def label_of(spec: ModelSpec, preset: str = "paper", **changes: Any) -> str:
    """Return what the protocol column says of a model's preset with changes."""
    return spec.protocol(preset, **changes).label(spec.protocol())


def rows_of(table: pd.DataFrame) -> Sequence[Row]:
    """Return the rows of a table, None where a value is missing."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def name_of(row: Row) -> str:
    """Return a configuration in a few words: "mlp 49 x 1", "transformer 32 x 1, 4 heads"."""
    heads = row.get("num_heads")
    end = f", {counted(heads, 'head')}" if heads is not None else ""
    return f"{row['model']} {row['hidden_size']} x {row['num_layers']}{end}"


def matching(rows: Sequence[Row], where: Mapping[str, object]) -> list[Row]:
    """Return the rows that have the values in ``where``.

    Where that does not name the number of parameters, it is within 1 % of the budget.
    """

    def is_near(row: Row) -> bool:
        return abs(row["num_parameters"] - row["budget"]) <= TOLERANCE * row["budget"]

    return [
        row
        for row in rows
        if all(row.get(name) == value for name, value in where.items())
        and ("num_parameters" in where or is_near(row))
    ]


def _join(left: pd.DataFrame, right: pd.DataFrame, columns: Sequence[str]) -> pd.DataFrame:
    """Return ``left`` with the ``columns`` of the row of ``right`` that has the same keys."""

    def keyed(frame: pd.DataFrame) -> pd.Series:
        # Plain tuples: another model may lack a size, or have words in its place.
        keys = frame.reindex(columns=_KEYS).astype(object)
        tuples = keys.where(keys.notna(), None).itertuples(index=False, name=None)
        return pd.Series(list(tuples), index=frame.index, dtype=object)

    right = right[right["model"].isin(left["model"])]  # another's words are no keys
    joined = left.assign(key=keyed(left)).merge(
        right[list(columns)].assign(key=keyed(right)), "left", on="key", validate="many_to_one"
    )
    return joined.drop(columns="key")
