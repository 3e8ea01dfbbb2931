"""Our thresholds beside the published ones. Imports no torch."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from threshold_search.log.layout import task_columns
from threshold_search.log.results_folder import DEFAULT_FOLDER
from threshold_search.models import MODELS
from threshold_search.plan import published_configurations
from training.bits import BITS_VERSION
from training.errors import UserError
from training.protocol import Protocol
from training.spec import TASK
from visualizations.results import PAPER_PROTOCOL, configuration_columns, load_results, select
from visualizations.summary import STATISTICS, bits_per_parameter, summarize

PUBLISHED_TABLES = Path(__file__).parent / "published_tables.csv"

_PUBLISHED_NAMES = {
    "budget_label": "budget",
    "true_parameters": "num_parameters",
    "mean_threshold": "published_mean",
    "median_threshold": "published_median",
    "std_threshold": "published_std",
}
_PUBLISHED = ["published_mean", "published_median", "published_std"]
# Of every statistic what it is called beside the published ones.
_OURS = {name: f"ours_{name}" for name in STATISTICS} | {"n": "repeats", "capped": "capped"}
_HEADINGS = {
    "num_parameters": "true parameters",
    "repeats": "repeats",
    "ours_mean": "ours: mean",
    "ours_median": "ours: median",
    "ours_std": "ours: std",
    "ours_low": "ours: 95 % interval",
    "threshold_mean": "ours: mean memorized",
    "bits_per_parameter": "ours: bits/parameter",
    "published_mean": "published: mean",
    "published_median": "published: median",
    "published_std": "published: std",
    "ratio": "ours / published",
}


def published() -> pd.DataFrame:
    """Return the published rows, models and sizes named as in study/published_tables.csv.

    Columns: ``table``, its number in the paper; ``model``; ``budget``, the label of the row;
    ``num_parameters``, the true count; the sizes, NA (of Int64) where a model lacks one;
    ``published_mean``, ``published_median`` and ``published_std`` of the first failing size over
    five repeats, in sequences.

    The rows are known without the file. Where it cannot be used a note on stderr says why, and
    ``table`` and the published numbers are NA.
    """
    rows = _published_rows()
    keys = list(rows.columns)
    values = ["table", *_PUBLISHED]
    try:
        tables = _published_tables(keys)
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        _note(f"no published numbers: {PUBLISHED_TABLES}: {reason}")
        tables = pd.DataFrame(columns=[*keys, *values])
    types = {"table": "Int64", **dict.fromkeys(_PUBLISHED, "float")}
    return _join(rows, tables, keys, values)[["table", *keys, *_PUBLISHED]].astype(types)


def _published_rows() -> pd.DataFrame:
    """Return model, budget, true size and sizes of every published row, in the paper's order."""
    rows = [
        {"model": spec.name, "budget": budget, **architecture.columns()}
        for spec in MODELS.values()
        for architecture, _, budget in published_configurations(spec, spec.protocol(), {})
    ]
    # The sizes in the order of the model that has the most.
    most_first = sorted(rows, key=len, reverse=True)
    columns = list(dict.fromkeys(name for row in most_first for name in row))
    return pd.DataFrame(rows, columns=columns, dtype=object).astype(_key_types(columns))


def _key_types(columns: Sequence[str]) -> dict[str, str]:
    return {**dict.fromkeys(columns, "Int64"), "model": "str"}


def _published_tables(keys: list[str]) -> pd.DataFrame:
    """Return what the file has of the published rows; raise what says that it has not."""
    tables = pd.read_csv(PUBLISHED_TABLES).rename(columns=_PUBLISHED_NAMES)
    columns = [*keys, "table", *_PUBLISHED]
    if missing := [name for name in columns if name not in tables]:
        names = {new: old for old, new in _PUBLISHED_NAMES.items()}
        raise ValueError(f"it has no column {names.get(missing[0], missing[0])}")
    numbers = dict.fromkeys(_PUBLISHED, "float")
    tables = tables[columns].astype({**_key_types(keys), "table": "Int64", **numbers})
    sizes = tables[_PUBLISHED].to_numpy()
    if not (np.isfinite(sizes).all() and (sizes[:, :2] > 0).all() and (sizes[:, 2] >= 0).all()):
        raise ValueError("a number is missing or out of range")
    if tables.duplicated(keys).any():
        raise ValueError("it has a row twice")
    return tables


@functools.cache  # several tables need the numbers; one note is enough
def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


def beside_published(searches: pd.DataFrame, also: Sequence[str] = ()) -> pd.DataFrame:
    """Return one row per configuration of ``searches``, with the published numbers it has.

    ``searches`` are rows of :func:`~visualizations.results.load_results`; ``also`` are columns that
    tell rows apart besides those of a configuration. Columns: these; ``repeats`` and ``ours_mean``,
    ``ours_median``, ``ours_std``, ``ours_low``, ``ours_high`` and ``capped``, which are the
    statistics of :func:`~visualizations.summary.summarize`; ``published_mean``,
    ``published_median``, ``published_std``, NaN where nothing was published. All in sequences.

    The published numbers belong to a budget, sizes and the published task, so they also stand
    beside searches whose protocol differs in other settings.
    """
    known = configuration_columns(searches)
    by = [*known, *(name for name in also if name not in known)]
    ours = summarize(searches, by).rename(columns=_OURS)
    rows = published()
    table = _join(ours, rows, _key_columns(rows), _PUBLISHED)
    table.loc[[_is_another_task(label) for label in table["protocol"]], _PUBLISHED] = math.nan
    return table


def comparison_table(
    model: str,
    results_dir: Path | str = DEFAULT_FOLDER,
    protocol: str = PAPER_PROTOCOL,
    bits: int = BITS_VERSION,
) -> pd.DataFrame:
    """Return one row per published row of ``model``, whether it was measured or not.

    Columns: ``budget``, ``num_parameters`` and the sizes; ``repeats``, 0 where nothing was
    measured; the others of :func:`beside_published`; ``threshold_mean``, the mean of the largest
    sizes memorized, in sequences; ``bits_per_parameter``, threshold_mean * T*log2(V) /
    num_parameters; ``ratio``, ours_mean / published_mean. What was not measured is NaN. Where
    ``capped`` is not 0 our mean is a lower bound.

    Only searches of the bits version ``bits`` whose protocol is exactly ``protocol`` count, and
    only under the budget they were asked for; repeats of different base seeds are pooled. Raises
    :class:`UserError` for a folder that does not exist, a malformed CSV, and another task.
    """
    table = every_published_row(results_dir, protocol, bits)
    rows = table[table["model"] == model].reset_index(drop=True)
    lacking = [
        name for name in rows.columns[: rows.columns.get_loc("repeats")] if rows[name].isna().all()
    ]
    return rows.drop(columns=["model", *lacking])


def every_published_row(
    results_dir: Path | str = DEFAULT_FOLDER,
    protocol: str = PAPER_PROTOCOL,
    bits: int = BITS_VERSION,
) -> pd.DataFrame:
    """Return the tables of :func:`comparison_table` of all published models as one."""
    if _is_another_task(protocol):
        raise UserError(f"the published numbers are of another task than {protocol!r}")
    rows = published()
    keys = _key_columns(rows)
    ours = summarize(select(load_results(results_dir), protocol, bits)).rename(columns=_OURS)
    statistics = list(_OURS.values())
    table = _join(rows, ours, keys, statistics)
    for count in ("repeats", "capped"):
        table[count] = table[count].fillna(0).astype("int64")
    table["threshold_mean"] = table["ours_mean"] - 1  # of every search first_failure is one more
    of_task = table[["num_parameters"]].assign(**task_columns(Protocol()))
    table["bits_per_parameter"] = bits_per_parameter(table["threshold_mean"], of_task)
    table["ratio"] = table["ours_mean"] / table["published_mean"]
    return table[[*keys, *(name for name in _HEADINGS if name not in keys), "ours_high", "capped"]]


def every_configuration(
    results_dir: Path | str = DEFAULT_FOLDER, bits: int = BITS_VERSION
) -> pd.DataFrame:
    """Return one row per configuration and protocol of a results folder, published or not.

    Columns: those of :func:`beside_published`; ``threshold_mean``, the mean of the largest sizes
    memorized, in sequences; ``bits_per_parameter`` of it. Raises :class:`UserError` as
    :func:`~visualizations.results.load_results` does.
    """
    searches = load_results(results_dir)
    table = beside_published(searches[searches["bits"] == bits])
    table["threshold_mean"] = table["ours_mean"] - 1
    table["bits_per_parameter"] = bits_per_parameter(table["threshold_mean"], table)
    return table


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Return a comparison table as text to be shown, indexed by budget."""
    text = pd.DataFrame(index=table.index)
    for column in table.columns.drop(["capped", "ours_high"]):
        form = {"bits_per_parameter": "{:#.3g}", "ratio": "{:.2f}"}.get(
            column, "{:,}" if pd.api.types.is_integer_dtype(table[column]) else "{:,.1f}"
        )
        text[_HEADINGS.get(column, column)] = [
            form.format(value) if pd.notna(value) else "-" for value in table[column]
        ]
    text[_HEADINGS["ours_low"]] = [
        interval_text(row["ours_low"], row["ours_high"], row["capped"])
        for _, row in table.iterrows()
    ]
    bounded = table["capped"] > 0
    for column in ("ours_mean", "ours_median", "threshold_mean", "bits_per_parameter", "ratio"):
        text.loc[bounded, _HEADINGS[column]] = ">= " + text.loc[bounded, _HEADINGS[column]]
    text.loc[table["repeats"] == 0, _HEADINGS["ours_mean"]] = "not measured"
    return text.set_index("budget")


def interval_text(low: float, high: float, capped: int) -> str:
    """Return an interval of the mean in words, "-" where one repeat or a lower bound has none."""
    return "-" if math.isnan(low) or capped else f"{low:,.1f} to {high:,.1f}"


def _key_columns(published_rows: pd.DataFrame) -> list[str]:
    return [n for n in published_rows.columns if n not in ("table", *_PUBLISHED)]


def _join(
    left: pd.DataFrame, right: pd.DataFrame, names: list[str], columns: list[str]
) -> pd.DataFrame:
    """Return ``left`` with the ``columns`` of the row of ``right`` that has the same ``names``."""

    def keyed(frame: pd.DataFrame) -> pd.Series:
        # Plain tuples: another model may lack a size, or have words in its place.
        values = frame.reindex(columns=names).astype(object)
        keys = values.where(values.notna(), None).itertuples(index=False, name=None)
        return pd.Series(list(keys), index=frame.index, dtype=object)

    joined = left.assign(key=keyed(left)).merge(
        right[columns].assign(key=keyed(right)), how="left", on="key", validate="many_to_one"
    )
    return joined.drop(columns="key")


def _is_another_task(protocol: str) -> bool:
    return any(f" {name}=" in protocol for name in TASK)
