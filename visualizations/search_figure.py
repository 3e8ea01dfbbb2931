"""Figures of whatever was searched: thresholds against what was varied."""

from __future__ import annotations

import itertools

import pandas as pd
from matplotlib.figure import Figure

from visualizations.results import configuration_columns
from visualizations.threshold_lines import X_LABELS, threshold_figure

LOG_FROM = 4  # an axis of positive numbers is logarithmic if the largest is so many times the least


def search_figures(searches: pd.DataFrame) -> dict[str, Figure]:
    """Return the :func:`search_figure` of every model and task, by a name for its file."""
    return {
        f"thresholds_{model}_{task}".replace(":", "."): search_figure(group)
        for (model, task), group in searches.groupby(["model", "task"])
    }


def search_figure(searches: pd.DataFrame) -> Figure:
    """Return thresholds of finished searches, rows as of visualizations/results.py.

    The x axis and the lines are the columns of :func:`axes_of`.
    """
    x, series = axes_of(searches)
    values = searches[x]
    is_log = values.min() > 0 and values.max() >= LOG_FROM * values.min()
    title = f"{', '.join(searches['model'].unique())}: threshold against {X_LABELS.get(x, x)}"
    return threshold_figure(searches, x, series, title=title, log_x=bool(is_log))


def axes_of(searches: pd.DataFrame) -> tuple[str, str]:
    """Return the columns for the x axis and for the lines.

    They are a pair that tells all configurations apart, with the fewest lines, then the fewest
    different x: a grid's own axes rather than the widths that were solved for it. Sizes, which come
    last in a row, go before numbers of parameters. A line has one protocol: without a compiler the
    engine can depend on the size. Where there is no such pair it is parameters, and models.
    """
    columns = configuration_columns(searches)
    configurations = searches[columns].drop_duplicates()
    numbers = [
        name
        for name in reversed(columns[columns.index("bits") + 1 :])
        if pd.api.types.is_numeric_dtype(configurations[name])
        and configurations[name].notna().all()
    ]
    found = [
        (x, series)
        for x, series in itertools.product(numbers, ["model", "protocol", *reversed(columns[3:])])
        if x != series
        and (configurations.groupby(series)["protocol"].nunique() == 1).all()
        and configurations[x].nunique() > 1
        and configurations[series].notna().all()
        and not configurations.duplicated([x, series]).any()
    ]
    if not found:
        return "num_parameters", "model" if configurations[
            "protocol"
        ].nunique() == 1 else "protocol"
    return min(found, key=lambda pair: tuple(configurations[list(reversed(pair))].nunique()))
