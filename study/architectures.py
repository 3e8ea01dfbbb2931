"""Architectures at the same true number of parameters: table and figure.

A configuration belongs here if its true number of parameters is within 1 % of the budget that was
asked for, so a published label of a transformer that is no true count does not; and if it has the
default options of a registered model, so a decoder-only model with rotary positions does not.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from study.comparison import TOLERANCE
from threshold_search.models import MODELS
from threshold_search.plan import configurations
from training.errors import UserError
from visualizations.drawing import (
    Style,
    drawable_figure,
    floats,
    light_grid,
    own_style,
    plain_log_ticks,
    repeats_text,
    style_of,
    whole_legend,
)
from visualizations.markdown import counted
from visualizations.summary import bits_per_parameter, summarize

SIZE_COLUMNS = ("num_layers", "num_heads")


def at_true_budgets(searches: pd.DataFrame) -> pd.DataFrame:
    """Return one row per configuration that has about as many parameters as were asked for.

    ``searches`` are those of one protocol (study/folder.py). Columns: those of a configuration, the
    statistics of :func:`~visualizations.summary.summarize` of first_failure, in sequences, and
    ``bits_per_parameter`` of the mean of the largest sizes memorized. Sorted by budget, layers and
    heads. What cannot be compared is passed over with a note on stderr: a model
    whose default options cannot be told, because it has no size for its own budget, and one with
    several configurations in one place.
    """
    asked = floats(searches["budget"])
    near = np.abs(floats(searches["num_parameters"]) - asked) <= TOLERANCE * asked
    table = summarize(searches[near & _has_default_options(searches)])
    table["bits_per_parameter"] = bits_per_parameter(table["mean"] - 1, table)
    again = table[table.duplicated(["model", "budget", *SIZE_COLUMNS])]
    for row in again.drop_duplicates("model").itertuples():
        _note(f"{row.model} has several configurations of one kind at the budget {row.budget:,}")
    return table[~table["model"].isin(again["model"])].sort_values(
        ["budget", *SIZE_COLUMNS], ignore_index=True
    )


def _has_default_options(searches: pd.DataFrame) -> pd.Series:
    """Return for each search whether its model is registered and its words are as by default."""
    usual = pd.Series(False, index=searches.index)
    for name, spec in MODELS.items():
        own = searches[searches["model"] == name]
        words = [column for column, kind in spec.sizes.items() if kind is str]
        if words and len(own):
            try:
                (first, *_) = configurations(spec, spec.protocol(), int(own["budget"].iloc[0]), {})
            except UserError as error:
                _note(f"{name}: {error}")
                continue
            for column in words:
                own = own[own[column] == first[0].columns()[column]]
        usual[own.index] = True
    return usual


def _note(reason: str) -> None:
    print(f"note: not among the architectures: {reason}", file=sys.stderr)


def models_of(table: pd.DataFrame) -> list[str]:
    """Return the models of a table in the order of the registry."""
    return [name for name in MODELS if name in set(table["model"])]


def side_by_side(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of :func:`at_true_budgets` as text, one column per model.

    One row per budget, depth and number of heads that any model with heads has. A model without
    heads stands beside every number of them. Cells: "mean ± std (bits per parameter)" of
    first_failure, and how many repeats it is of; "-" where nothing was measured.
    """
    with_heads = table[table["num_heads"].notna()]
    keys = ["budget", *SIZE_COLUMNS]
    text = with_heads[keys].drop_duplicates().sort_values(keys, ignore_index=True)
    for model in models_of(table):
        own = table[table["model"] == model]
        headless = own["num_heads"].isna().all()
        by = ["budget", "num_layers"] if headless else keys
        cells = {tuple(row[name] for name in by): _cell(row) for row in own.to_dict("records")}
        text[model] = [
            cells.get(tuple(row[name] for name in by), "-") for row in text.to_dict("records")
        ]
    return text


def _cell(row: dict[Any, Any]) -> str:
    spread = "" if np.isnan(row["std"]) else f" ± {row['std']:,.0f}"
    return f"{row['mean']:,.0f}{spread} ({row['bits_per_parameter']:.3f}), n = {row['n']}"


@own_style()
def architectures_figure(searches: pd.DataFrame, num_layers: int = 1) -> Figure | None:
    """Threshold and bits per parameter against true parameters, the models side by side.

    ``searches`` are those of one protocol (study/folder.py); only those at their true budget and
    with ``num_layers`` layers are drawn, one line per number of heads. Points are mean +- sample
    std. None if there are no such searches.
    """
    table = at_true_budgets(searches)
    table = table[table["num_layers"] == num_layers]
    if table.empty:
        return None
    models = models_of(table)
    table = table.rename(columns={"mean": "ours_mean", "std": "ours_std", "n": "repeats"})
    heads = sorted(set(table["num_heads"].dropna()))
    figure = drawable_figure((3.1 * len(models) + 0.8, 6.4))
    axes = figure.subplots(2, len(models), sharex=True, sharey="row", squeeze=False)
    handles = {}
    for column, model in enumerate(models):
        own = table[table["model"] == model]
        values = [None] if own["num_heads"].isna().all() else heads
        for value in values:
            rows = own if value is None else own[own["num_heads"] == value]
            index = 0 if value is None else heads.index(value) + 1
            label = "no attention" if value is None else f"heads: {value}"
            if len(rows):
                handles[label] = _draw(axes[:, column], rows, label, style_of(index))
        axes[0, column].set_title(f"{model}\n({repeats_text(own)})", fontsize=10)
    _finish(axes, table)
    layers = counted(num_layers, "layer")
    figure.suptitle(f"Architectures of {layers} at equal parameters", fontsize=11)
    whole_legend(figure, list(handles.values()))
    return figure


def _draw(axes: np.ndarray, rows: pd.DataFrame, label: str, style: Style) -> Any:
    """Draw one line into the panels of the threshold and of the bits; return its handle."""
    per_parameter = floats(rows["bits_per_parameter"])
    means = floats(rows["ours_mean"])
    drawn = []
    for panel, y, scale in ((axes[0], means, 1.0), (axes[1], per_parameter, per_parameter / means)):
        drawn.append(
            panel.errorbar(
                floats(rows["num_parameters"]),
                y,
                yerr=np.nan_to_num(floats(rows["ours_std"]) * scale),
                label=label,
                color=style.color,
                marker=style.marker,
                markersize=style.size,
                linewidth=1.4,
                elinewidth=1.0,
                capsize=2.5,
            )
        )
    return drawn[0]


def _finish(axes: np.ndarray, table: pd.DataFrame) -> None:
    """Scales, ticks and names of all panels."""
    for panel in axes.flat:
        panel.set(xscale="log", yscale="log")
        light_grid(panel)
    axes[0, 0].set_ylabel("memorization threshold\n(first failing size, sequences)")
    axes[1, 0].set_ylabel("bits stored per parameter")
    for row in axes[:, 0]:
        low, high = row.get_ylim()
        row.set_ylim(max(low, high * 1e-5), high)
        plain_log_ticks(row.yaxis, *row.get_ylim())
    for panel in axes[1]:
        panel.set_xlabel("parameters (true count)")
        plain_log_ticks(panel.xaxis, *panel.get_xlim())
        panel.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))  # more would touch
