"""Our thresholds beside the published ones, one table row per published row. Imports no torch."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd

from threshold_search.records import ARCHITECTURE_COLUMNS, result_layout
from threshold_search.results_folder import DEFAULT_FOLDER, read_rows
from training.bits import BITS_VERSION
from training.errors import UserError

PUBLISHED_TABLES = DEFAULT_FOLDER / "published_tables.csv"
PAPER_PROTOCOL = "paper"
BITS_PER_SEQUENCE = 10 * math.log2(10)  # T*log2(V) of the published task, T = V = 10

_PUBLISHED_NAMES = {
    "budget_label": "budget",
    "true_parameters": "num_parameters",
    "mean_threshold": "published_mean",
    "median_threshold": "published_median",
    "std_threshold": "published_std",
}
_HEADINGS = {
    "num_parameters": "true parameters",
    "repeats": "repeats",
    "ours_mean": "ours: mean",
    "ours_median": "ours: median",
    "ours_std": "ours: std",
    "threshold_mean": "ours: mean memorized",
    "bits_per_parameter": "ours: bits/parameter",
    "published_mean": "published: mean",
    "published_median": "published: median",
    "published_std": "published: std",
    "ratio": "ours / published",
}


def comparison_table(
    model: str,
    results_dir: Path | str = DEFAULT_FOLDER,
    protocol: str = PAPER_PROTOCOL,
    bits: int = BITS_VERSION,
) -> pd.DataFrame:
    """Return one row per published row of ``model`` ("mlp" or "transformer").

    Columns: ``budget`` and the architecture (named as in the results CSVs, with the true
    ``num_parameters``); ``repeats``, 0 where nothing was measured; ``ours_mean``,
    ``ours_median``, ``ours_std`` (sample std) of ``first_failure``, the published convention,
    in sequences; ``threshold_mean``, the mean of the largest sizes memorized;
    ``bits_per_parameter``, threshold_mean * T*log2(V) / num_parameters; ``published_mean``,
    ``published_median``, ``published_std``; ``ratio``, ours_mean / published_mean; ``capped``,
    the repeats that ended at their size limit without a failure, which count as limit + 1, so
    that the row is a lower bound. What was not measured is NaN.

    Only searches of the bits version ``bits`` whose protocol is exactly ``protocol`` count, and
    only under the budget they were asked for; repeats of different base seeds are pooled. Raises
    :class:`UserError` for a folder that does not exist or a malformed CSV.
    """
    if "vocab_size=" in protocol or "seq_len=" in protocol:
        raise UserError(f"the published numbers are of another task than {protocol!r}")
    keys = ["budget", *ARCHITECTURE_COLUMNS[model]]
    searches = finished_searches(model, Path(results_dir), bits)
    statistics = (
        searches[searches["protocol"] == protocol]
        .groupby(keys)
        .agg(
            repeats=("repeat", "size"),
            ours_mean=("first_failure", "mean"),
            ours_median=("first_failure", "median"),
            ours_std=("first_failure", "std"),
            threshold_mean=("threshold", "mean"),
            capped=("capped", "sum"),
        )
        .reset_index()
    )
    table = _published(model).merge(statistics, how="left", on=keys, validate="one_to_one")
    for count in ("repeats", "capped"):
        table[count] = table[count].fillna(0).astype("int64")
    stored = table["threshold_mean"] * BITS_PER_SEQUENCE
    table["bits_per_parameter"] = stored / table["num_parameters"]
    table["ratio"] = table["ours_mean"] / table["published_mean"]
    return table[[*keys, *(name for name in _HEADINGS if name not in keys), "capped"]]


def readable(table: pd.DataFrame) -> pd.DataFrame:
    """Return a comparison table as text to be shown, indexed by budget."""
    text = pd.DataFrame(index=table.index)
    for column in table.columns.drop("capped"):
        form = {"bits_per_parameter": "{:#.3g}", "ratio": "{:.2f}"}.get(
            column, "{:,}" if table[column].dtype == "int64" else "{:,.1f}"
        )
        text[_HEADINGS.get(column, column)] = [
            form.format(value) if pd.notna(value) else "-" for value in table[column]
        ]
    for column in ("ours_mean", "ours_median", "threshold_mean", "bits_per_parameter", "ratio"):
        bounded = table["capped"] > 0
        text.loc[bounded, _HEADINGS[column]] = ">= " + text.loc[bounded, _HEADINGS[column]]
    text.loc[table["repeats"] == 0, _HEADINGS["ours_mean"]] = "not measured"
    return text.set_index("budget")


def finished_searches(model: str, folder: Path, bits: int = BITS_VERSION) -> pd.DataFrame:
    """Return the finished searches of ``model`` of one bits version, all protocols.

    Columns of MODEL_results.csv and ``capped``, whether a search reached its limit without a
    failure; its ``first_failure`` is then limit + 1. No rows if the file does not exist (yet).
    Raises :class:`UserError` for a folder that does not exist or a malformed CSV.
    """
    if not folder.is_dir():
        raise UserError(f"no results folder {folder}")
    path, layout = folder / f"{model}_results.csv", result_layout(model)
    rows = read_rows(path, layout) if path.exists() else []
    identity = layout.columns[: layout.columns.index("threshold")]
    seen = set()
    for number, row in enumerate(rows, start=2):
        search = tuple(row[column] for column in identity)
        if row["first_failure"] not in (None, row["threshold"] + 1):
            raise UserError(f"{path} line {number}: threshold and first_failure disagree")
        if search in seen:
            raise UserError(f"{path} line {number}: repeats an earlier search")
        seen.add(search)
    searches = pd.DataFrame([r for r in rows if r["bits"] == bits], columns=layout.columns)
    searches["capped"] = searches["first_failure"].isna()
    searches["first_failure"] = searches["first_failure"].fillna(searches["threshold"] + 1)
    numbers = [c for c in searches.columns if c not in ("model", "protocol")]
    fractional = ("first_failure", "threshold", "seconds")
    return searches.astype({c: "float64" if c in fractional else "int64" for c in numbers})


def _published(model: str) -> pd.DataFrame:
    """Return the published rows of ``model``, columns named as in :func:`comparison_table`."""
    tables = pd.read_csv(PUBLISHED_TABLES).rename(columns=_PUBLISHED_NAMES)
    rows = tables[tables["model"] == model].reset_index(drop=True)
    keys = ["budget", *ARCHITECTURE_COLUMNS[model]]
    statistics = ["published_mean", "published_median", "published_std"]
    return rows[[*keys, *statistics]].astype(
        {**dict.fromkeys(keys, "int64"), **dict.fromkeys(statistics, "float64")}
    )
