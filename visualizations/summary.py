"""Statistics over the repeats of a search: the one place that computes them. No torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from visualizations.results import configuration_columns

CONFIDENCE = 0.95
STATISTICS = ("n", "mean", "median", "std", "low", "high", "capped")
# Of every statistic what it is called beside published numbers, which a frame may have per search.
OURS = {name: f"ours_{name}" for name in STATISTICS} | {"n": "repeats", "capped": "capped"}
PUBLISHED = ("published_mean", "published_median", "published_std")


def summarize(searches: pd.DataFrame, by: Sequence[str] | None = None) -> pd.DataFrame:
    """Return one row per group of searches, in the order in which the groups first appear.

    ``searches`` are rows of :func:`~visualizations.results.load_results`, ``by`` the columns that
    tell the groups apart, by default those of a configuration. NA is a value like any other.

    Columns: ``by``; ``n``, the number of searches; ``mean``, ``median`` and ``std`` (sample
    standard deviation, NaN for n = 1) of ``first_failure``, in sequences; ``low`` and ``high``, the
    95 % interval of the mean by Student's t, mean -+ t(n - 1) * std / sqrt(n), NaN for n = 1;
    ``capped``, how many searches reached their size limit without a failure.

    Nothing bounds the interval from below: with few, scattered repeats ``low`` can be negative,
    though no threshold is. A capped search counts as its limit + 1, so with one among them the mean
    is a lower bound, and the deviation and the interval say little.
    """
    by = configuration_columns(searches) if by is None else list(by)
    # As float64: the statistics of nullable integers would be nullable floats.
    sizes = searches.assign(first_failure=searches["first_failure"].astype("float64"))
    summary = (
        sizes.groupby(by, sort=False, dropna=False)
        .agg(
            n=("first_failure", "size"),
            mean=("first_failure", "mean"),
            median=("first_failure", "median"),
            std=("first_failure", "std"),
            capped=("capped", "sum"),
        )
        .reset_index()
    )
    n = summary["n"].to_numpy(dtype=float)
    degrees = np.where(n > 1, n - 1, np.nan)
    half = stdtrit(degrees, (1 + CONFIDENCE) / 2) * summary["std"] / np.sqrt(n)
    summary["low"], summary["high"] = summary["mean"] - half, summary["mean"] + half
    return summary[[*by, *STATISTICS]]


def beside_published(searches: pd.DataFrame, also: Sequence[str] = ()) -> pd.DataFrame:
    """Return one row per configuration of ``searches``, with the published numbers they have.

    ``searches`` are rows of :func:`~visualizations.results.load_results`, with the columns
    ``published_mean``, ``published_median`` and ``published_std`` or without them
    (study/comparison.py adds those of the published study); ``also`` are columns that tell rows
    apart besides those of a configuration. Columns: these; ``repeats`` and ``ours_mean``,
    ``ours_median``, ``ours_std``, ``ours_low``, ``ours_high`` and ``capped``, which are the
    statistics of :func:`summarize`; the published ones, NaN where there are none. In sequences.
    """
    known = configuration_columns(searches)
    by = [*known, *(name for name in also if name not in known)]
    missing = [name for name in PUBLISHED if name not in searches]
    searches = searches.reindex(columns=[*searches, *missing])
    table = summarize(searches, [*by, *PUBLISHED]).rename(columns=OURS)
    return table[[*by, *OURS.values(), *PUBLISHED]]


def bits_per_parameter(memorized: pd.Series, table: pd.DataFrame) -> pd.Series:
    """Return the label bits that ``memorized`` sequences hold, over the number of parameters.

    That is memorized * label_len * log2(label_vocab_size) / ``num_parameters``, of the columns of
    ``table``.
    """
    bits_per_token = np.log2(table["label_vocab_size"].to_numpy(float))
    bits = table["label_len"].to_numpy(float) * bits_per_token
    return memorized * bits / table["num_parameters"].astype("float64")
