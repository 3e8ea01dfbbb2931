"""Thresholds against any column, one line per value of another.

from visualizations.figure_files import save
from visualizations.results import load_results, select
from visualizations.threshold_lines import threshold_figure

searches = select(load_results("runs/widths"))
save(threshold_figure(searches, x="hidden_size", series="num_layers"), "widths", "runs/widths")
"""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from training.errors import UserError
from training.probe import BITS_VERSION
from visualizations.drawing import (
    Handle,
    error_line,
    finish_x_axis,
    floats,
    legend,
    log_limits,
    mark_capped,
    mark_missing,
    new_figure,
    own_style,
    plain_log_ticks,
    repeats_text,
    shifted,
    smallest_gap,
    style_of,
)
from visualizations.results import PAPER_PROTOCOL
from visualizations.summary import beside_published

PUBLISHED_REPEATS = 5
THRESHOLD_LABEL = "memorization threshold\n(first failing size, sequences)"

X_LABELS = {"num_parameters": "parameters (true count)", "budget": "parameter budget"}


@own_style()
def threshold_figure(
    searches: pd.DataFrame,
    x: str = "num_parameters",
    series: str = "model",
    *,
    title: str | None = None,
    x_label: str | None = None,
    labels: Mapping[Any, str] | None = None,
    log_x: bool = False,
) -> Figure:
    """Return thresholds against the column ``x``, one line per value of the column ``series``.

    ``searches`` are rows of :func:`~visualizations.results.load_results`, of any models, with any
    columns of your own; repeats of one configuration become one point, mean +- sample std, in
    sequences. Where they have ``published_mean`` and ``published_std`` these stand beside ours
    (study/comparison.py adds them). Points of one ``x`` are moved sideways a little where they
    would hide one another. A series with two configurations at one ``x`` has no line.

    ``x_label`` names the x axis, with its unit; by default it is the column's name. ``labels`` maps
    values of ``series`` to names for the legend. ``log_x`` makes the x axis logarithmic.

    Raises :class:`UserError` for no searches, a column that is not there or that some of these
    models lack, an ``x`` that is no number (or not positive, with ``log_x``), and for several
    protocols or bits versions in one line, which are not to be mixed; of different lines, the
    legend says them.
    """
    _require_drawable(searches, x, series, log_x)
    details = {}
    for value, group in searches.groupby(series):
        kinds = _kinds(group, series)
        if len(kinds) > 1:
            raise UserError(
                f"{_name(series, value)} has searches of several protocols or bits versions "
                f"({'; '.join(kind or PAPER_PROTOCOL for kind in kinds)}): select one, or draw "
                "it as the series"
            )
        details[value] = f" ({kinds[0]})" if kinds[0] else ""
    table = beside_published(searches, also=[x, series])
    x_label = x_label or X_LABELS.get(x, x)
    title = title or f"threshold against {x_label}"
    kinds = _kinds(searches, series)
    if len(kinds) == 1:  # of all lines: said once, in the title
        details = {}
        title += f"\n({kinds[0]})" if kinds[0] else ""
    return line_figure(table, x, series, title, x_label, labels or {}, log_x, details)


def _require_drawable(searches: pd.DataFrame, x: str, series: str, log_x: bool) -> None:
    if searches.empty:
        raise UserError("there are no searches to draw")
    for column in (x, series):
        if column not in searches:
            raise UserError(f"the searches have no column {column}")
        lacking = searches.loc[searches[column].isna(), "model"]
        if len(lacking):
            raise UserError(f"{lacking.iloc[0]} has no {column}: select the models to draw")
    if not pd.api.types.is_numeric_dtype(searches[x]):
        raise UserError(f"{x} is not a number")
    if log_x and (searches[x] <= 0).any():
        raise UserError(f"{x} is not always positive: it has no logarithm")


def _kinds(searches: pd.DataFrame, series: str) -> list[str]:
    """Return the protocols and bits versions among ``searches`` in words.

    Without what is usual, and without what ``series`` says.
    """
    words = {
        "protocol": lambda protocol: "" if protocol == PAPER_PROTOCOL else protocol,
        "bits": lambda bits: "" if bits == BITS_VERSION else f"bits version {bits}",
    }
    columns = [name for name in words if name != series]
    kinds = searches[columns].drop_duplicates().to_dict("records")
    return [", ".join(filter(None, (words[str(k)](v) for k, v in kind.items()))) for kind in kinds]


def line_figure(
    table: pd.DataFrame,
    x: str,
    series: str,
    title: str,
    x_label: str,
    labels: Mapping[Any, str],
    log_x: bool = False,
    details: Mapping[Any, str] | None = None,
) -> Figure:
    """Draw ours and published of ``table`` against ``x``, one line each per value of ``series``.

    ``details`` is what the legend adds to the label of ours.
    """
    groups = list(table.groupby(series))
    figure, axes = new_figure(title)
    bottom, top = log_limits(table)
    axes.set(yscale="log", ylim=(bottom, top), xlabel=x_label, ylabel=THRESHOLD_LABEL)
    plain_log_ticks(axes.yaxis, bottom, top)
    axes.set_xscale("log" if log_x else "linear")
    # Points at one x move sideways, less than to the next: error bars should not hide one another.
    gap = smallest_gap(floats(table[x]), log_x)
    is_shared = table[[x, series]].drop_duplicates()[x].duplicated().any()
    step = min(0.2, 0.6 / len(groups)) * gap if is_shared else 0.0
    ours: list[Handle] = []
    published: list[Handle | None] = []
    notes: list[Handle] = []
    for index, (value, group) in enumerate(groups):
        rows, style = group.sort_values(x), style_of(index)
        name = labels.get(value, _name(series, value))
        is_joined = not rows[x].duplicated().any()
        is_published = rows["published_mean"].notna().any()
        middle = (index - (len(groups) - 1) / 2) * step
        side = min(0.05, 0.15 / len(groups)) * gap if is_published else 0.0
        places = shifted(floats(rows[x]), middle + side, log_x)
        label = f"{name}{(details or {}).get(value, '')}, ours ({repeats_text(rows)})"
        ours.append(error_line(axes, places, rows, "ours", label, style, is_joined))
        notes += mark_capped(figure, axes, places, rows)
        notes += mark_missing(axes, places[floats(rows["repeats"]) == 0])
        published.append(None)
        if is_published:
            places = shifted(floats(rows[x]), middle - side, log_x)
            label = f"{name}, published (n = {PUBLISHED_REPEATS})"
            line = error_line(axes, places, rows, "published", label, style, is_joined)
            published[-1] = line
    finish_x_axis(axes, floats(table[x]), log_x)
    if table["published_mean"].notna().any():
        legend(figure, ours, published, notes)
    else:
        half = (len(ours) + 1) // 2
        legend(figure, ours[:half], ours[half:], notes)
    return figure


def _name(series: str, value: object) -> str:
    """Return what the legend calls a line: "num_layers = 2", or a word as it is."""
    return f"{series} = {value:,}" if isinstance(value, Integral) else str(value)
