"""Figures beyond the published ones. Error bars are one sample standard deviation over repeats."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mlp_experiments.mlp_utils import SPEC as MLP
from study.architectures import architectures_figure, at_true_budgets
from study.comparison import beside_published, comparison_table
from threshold_search.log.results_folder import DEFAULT_FOLDER
from threshold_search.models import MODELS
from training.bits import BITS_VERSION
from training.errors import UserError
from training.protocol import PRESETS
from transformer_experiments.transformer_utils import SPEC as TRANSFORMER
from visualizations.drawing import (
    Handle,
    drawable_figure,
    error_line,
    finish_x_axis,
    floats,
    log_limits,
    mark_missing,
    own_style,
    plain_log_ticks,
    repeats_text,
    style_of,
    whole_legend,
)
from visualizations.results import PAPER_PROTOCOL, configuration_columns, load_results, select
from visualizations.threshold_lines import THRESHOLD_LABEL, line_figure

PRESET_NAMES = {"paper": "the paper's protocol", "converged": "no early stop, 5,000 epochs"}
LINEAR_PROGRAM = "paper engine=linear-program"  # of the model without a hidden layer


@own_style()
def heads_figure(results_dir: Path | str = DEFAULT_FOLDER) -> Figure:
    """Transformer threshold against heads, a panel per depth, a line per width."""
    table = comparison_table(TRANSFORMER.name, results_dir)
    depths, widths = sorted(set(table["num_layers"])), sorted(set(table["hidden_size"]))
    figure = drawable_figure((3.2 * len(depths) + 0.8, 4.6))
    axes = figure.subplots(1, len(depths), sharey=True, squeeze=False)[0]
    bottom, top = log_limits(table)
    handles: dict[str, Handle] = {}
    for panel, depth in zip(axes, depths, strict=True):
        at_depth = table[table["num_layers"] == depth]
        panel.set(xscale="log", yscale="log", ylim=(bottom, top), xlabel="attention heads")
        for index, width in enumerate(widths):
            rows = at_depth[at_depth["hidden_size"] == width].sort_values("num_heads")
            x = floats(rows["num_heads"])
            for source in ("ours", "published"):
                label = f"d = {width}, {source}"
                handles[label] = error_line(panel, x, rows, source, label, style_of(index), True)
            missing = mark_missing(panel, x[floats(rows["repeats"]) == 0])
            handles.update({str(mark.get_label()): mark for mark in missing})
        layers = "layer" if depth == 1 else "layers"
        panel.set_title(f"{depth} {layers} (ours: {repeats_text(at_depth)})", fontsize=10)
        panel.grid(color="0.9", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        finish_x_axis(panel, floats(at_depth["num_heads"]), True)
    plain_log_ticks(axes[0].yaxis, bottom, top)
    axes[0].set_ylabel(THRESHOLD_LABEL)
    figure.suptitle("Transformer: threshold against attention heads", fontsize=11)
    whole_legend(figure, list(handles.values()), columns=4)
    return figure


@own_style()
def protocols_figure(results_dir: Path | str = DEFAULT_FOLDER, budget: int = 10_000) -> Figure:
    """MLP threshold against depth: published, under the same protocol, and for longer.

    Searches without a hidden layer may be in the folder's depth0/; what any weights would hold
    there, by linear programming, is drawn if it is known. Raises :class:`UserError` without
    searches of the preset ``converged`` at this budget.
    """
    presets = _preset_labels()
    labels = {**presets, LINEAR_PROGRAM: "exact (linear program)"}
    searches = _with_depth_0(Path(results_dir).expanduser())
    ours = searches[
        (searches["bits"] == BITS_VERSION)
        & (searches["model"] == MLP.name)
        & (searches["budget"] == budget)
        & searches["protocol"].isin(labels)
    ]
    if not set(presets) <= set(ours["protocol"]):
        raise UserError(f"there are no searches of every protocol at the budget {budget:,}")
    table = beside_published(ours)
    other = table["protocol"] != PAPER_PROTOCOL  # the published stand once, beside their protocol
    table.loc[other, ["published_mean", "published_std"]] = np.nan
    # The exact point in the middle: beside the last it would lie on the line of longer training.
    middle = [PAPER_PROTOCOL, LINEAR_PROGRAM]
    order = [label for label in dict.fromkeys([*middle, *labels]) if label in set(ours["protocol"])]
    table["protocol"] = pd.Categorical(table["protocol"], order, ordered=True)
    title = f"MLP, budget {budget:,}: threshold against depth"
    return line_figure(table, "num_layers", "protocol", title, "depth (hidden layers)", labels)


def _with_depth_0(folder: Path) -> pd.DataFrame:
    """Return the searches of a folder and of its depth0/, each once."""
    searches, other = load_results(folder), folder / "depth0"
    if not other.is_dir():
        return searches
    both = pd.concat([searches, load_results(other)], ignore_index=True)
    return both.drop_duplicates([*configuration_columns(searches), "repeat", "seed"])


def _preset_labels() -> Mapping[str, str]:
    """Return what the protocol column says for the presets of the figure, and their names."""
    paper = MLP.protocol()
    return {MLP.protocol(name).label(paper): PRESET_NAMES.get(name, name) for name in PRESETS}


def findings(results_dir: Path | str = DEFAULT_FOLDER) -> dict[str, Figure]:
    """Return the figures that the folder has the searches for, by file name."""
    searches = select(load_results(results_dir))
    figures = {"heads": heads_figure(results_dir)}
    true = at_true_budgets(searches)
    shallow = set(true.loc[true["num_layers"] == 1, "model"]) if len(true) else set()
    with contextlib.suppress(UserError):  # not searched in this folder, or several widths
        if models := [name for name in MODELS if name in shallow]:
            figures["architectures"] = architectures_figure(searches, models)
    with contextlib.suppress(UserError):
        figures["protocols"] = protocols_figure(results_dir)
    return figures
