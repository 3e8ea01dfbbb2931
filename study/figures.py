"""The study's figures of a results folder, our measurements beside the published ones.

Points are mean +- sample std over repeats, in the published convention (first_failure), of the
current bits version. What has not been measured is marked, not guessed. A figure is None where the
folder has no searches for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from mlp_experiments.mlp_utils import SPEC as MLP
from study.architectures import architectures_figure
from study.comparison import LINEAR_PROGRAM, label_of, with_published
from study.folder import StudyFolder
from threshold_search.models import MODELS
from training.errors import UserError
from training.probe import BITS_VERSION
from training.protocol import PRESETS, Protocol
from transformer_experiments.transformer_utils import SPEC as TRANSFORMER
from visualizations.drawing import (
    GREY,
    Handle,
    drawable_figure,
    error_line,
    finish_x_axis,
    floats,
    legend,
    light_grid,
    log_limits,
    mark_capped,
    mark_missing,
    new_figure,
    own_style,
    plain_log_ticks,
    repeats_text,
    style_of,
    whole_legend,
)
from visualizations.figure_files import save
from visualizations.markdown import counted
from visualizations.results import DEFAULT_FOLDER, PAPER_PROTOCOL, configuration_columns
from visualizations.search_figure import search_figures
from visualizations.summary import beside_published
from visualizations.threshold_lines import THRESHOLD_LABEL, line_figure

# What the figure of protocols calls a preset; another has its own name.
PRESET_NAMES = {"paper": "the paper's protocol", "converged": "no early stop, 5,000 epochs"}


def _published_rows(results_dir: Path | str, model: str) -> pd.DataFrame:
    table = StudyFolder(results_dir).published_rows
    return table[table["model"] == model]


@own_style()
def mlp_depth_figure(results_dir: Path | str = DEFAULT_FOLDER) -> Figure | None:
    """Published Figure 3: MLP threshold against depth, one line per budget."""
    table = _published_rows(results_dir, MLP.name)
    if not table["repeats"].any():
        return None
    labels = {budget: f"budget {budget:,}" for budget in table["budget"]}
    title = "MLP: threshold against depth"
    return line_figure(table, "num_layers", "budget", title, "depth (hidden layers)", labels)


@own_style()
def transformer_heads_figure(
    results_dir: Path | str = DEFAULT_FOLDER, num_layers: int = 1
) -> Figure | None:
    """Published Figure 4: transformer threshold against heads, one line per width (budget).

    Raises :class:`UserError` for a depth that was not published.
    """
    table = _published_rows(results_dir, TRANSFORMER.name)
    depths = table["num_layers"].unique()
    if num_layers not in depths:
        raise UserError(f"num_layers must be a published depth ({depths[0]} to {depths[-1]})")
    table = table[table["num_layers"] == num_layers]
    if not table["repeats"].any():
        return None
    title = f"Transformer, {counted(num_layers, 'layer')}: threshold against attention heads"
    labels = {width: f"d = {width}" for width in table["hidden_size"]}
    sizes = zip(table["hidden_size"], table["num_parameters"], strict=True)
    details = {width: f", {parameters:,} parameters" for width, parameters in sizes}
    return line_figure(
        table, "num_heads", "hidden_size", title, "attention heads", labels, True, details
    )


@own_style()
def ours_against_published_figure(results_dir: Path | str = DEFAULT_FOLDER) -> Figure | None:
    """Scatter of our mean against the published mean, one point per measured row."""
    table = StudyFolder(results_dir).published_rows
    if not table["repeats"].any():
        return None
    figure, axes = new_figure("Ours against published", size=(5.2, 5.6))
    bottom, top = log_limits(table)
    axes.set(xscale="log", yscale="log", xlim=(bottom, top), ylim=(bottom, top), aspect="equal")
    (diagonal,) = axes.plot([bottom, top], [bottom, top], color=GREY, linewidth=1, linestyle=":")
    diagonal.set_label("ours = published")
    points: list[Handle] = []
    notes: list[Handle] = []
    for index, (model, group) in enumerate(table.groupby("model", sort=False)):
        rows, style = group[group["repeats"] > 0], style_of(index)
        published = floats(rows["published_mean"])
        points.append(
            axes.errorbar(
                published,
                floats(rows["ours_mean"]),
                xerr=floats(rows["published_std"]),
                yerr=floats(rows["ours_std"]),
                label=f"{model}, ours ({repeats_text(rows)})",
                color=style.color,
                marker=style.marker,
                markersize=style.size,
                markeredgecolor="white",  # tells points that overlap apart
                markeredgewidth=0.6,
                linestyle="none",
                elinewidth=0.7,
                capsize=1.5,
            )
        )
        notes += mark_capped(figure, axes, published, rows)
    missing = table[table["repeats"] == 0]
    label = f"not measured ({len(missing)} of {len(table)} rows)"
    notes += mark_missing(axes, floats(missing["published_mean"]), label)
    for axis in (axes.xaxis, axes.yaxis):
        plain_log_ticks(axis, bottom, top)
    axes.set_xlabel("published threshold (first failing size, sequences)")
    axes.set_ylabel("our threshold (first failing size, sequences)")
    legend(figure, [diagonal], points, notes)
    return figure


@own_style()
def heads_figure(results_dir: Path | str = DEFAULT_FOLDER) -> Figure | None:
    """Transformer threshold against heads, a panel per depth, a line per width."""
    table = _published_rows(results_dir, TRANSFORMER.name)
    if not table["repeats"].any():
        return None
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
        name = counted(depth, "layer")
        panel.set_title(f"{name} (ours: {repeats_text(at_depth)})", fontsize=10)
        light_grid(panel)
        finish_x_axis(panel, floats(at_depth["num_heads"]), True)
    plain_log_ticks(axes[0].yaxis, bottom, top)
    axes[0].set_ylabel(THRESHOLD_LABEL)
    figure.suptitle("Transformer: threshold against attention heads", fontsize=11)
    whole_legend(figure, list(handles.values()), columns=4)
    return figure


@own_style()
def protocols_figure(
    results_dir: Path | str = DEFAULT_FOLDER, budget: int = 10_000
) -> Figure | None:
    """MLP threshold against depth: published, under the same protocol, and by other presets.

    Searches without a hidden layer may be in the folder's depth0/; what any weights would hold
    there, by linear programming, is drawn if it is known. None where the folder has no searches by
    another preset than the published one at this budget.
    """
    labels = _protocol_labels()
    folder = StudyFolder(results_dir)
    both = pd.concat([folder.searches, folder.inside("depth0").searches], ignore_index=True)
    both = both.drop_duplicates([*configuration_columns(folder.searches), "repeat", "seed"])
    ours = both[
        (both["model"] == MLP.name) & (both["budget"] == budget) & both["protocol"].isin(labels)
    ]
    found = set(ours["protocol"])
    if not found - {PAPER_PROTOCOL, LINEAR_PROGRAM}:
        return None
    table = beside_published(with_published(ours))
    other = table["protocol"] != PAPER_PROTOCOL  # the published stand once, beside their protocol
    table.loc[other, ["published_mean", "published_std"]] = np.nan
    table["protocol"] = pd.Categorical(
        table["protocol"], [label for label in labels if label in found], ordered=True
    )
    title = f"MLP, budget {budget:,}: threshold against depth"
    return line_figure(table, "num_layers", "protocol", title, "depth (hidden layers)", labels)


def _protocol_labels() -> Mapping[str, str]:
    """Return what the protocol column says, and what the figure calls it, in its order.

    The exact point is in the middle: beside the last it would lie on the line of longer training.
    """
    presets = {label_of(MLP, name): PRESET_NAMES.get(name, name) for name in PRESETS}
    middle = {PAPER_PROTOCOL: PRESET_NAMES["paper"], LINEAR_PROGRAM: "exact (linear program)"}
    return {**middle, **presets}


def other_figures(results_dir: Path | str = DEFAULT_FOLDER) -> dict[str, Figure]:
    """Return the figures beyond the published ones that the folder has searches for, by name.

    Of every model and task there is one of all its searches, by
    :func:`~visualizations.search_figure.search_figures`. A folder with every published row has more
    protocols than one figure shows: there the registered models, on the published task, have the
    study's figures alone.
    """
    folder = StudyFolder(results_dir)
    figures = {
        "heads": heads_figure(results_dir),
        "architectures": architectures_figure(folder.paper),
        "protocols": protocols_figure(results_dir),
    }
    searches = folder.searches
    if folder.published_rows["repeats"].all():
        is_of_study = searches["model"].isin(MODELS) & (searches["task"] == Protocol().task)
        searches = searches[~is_of_study]
    return _not_none(figures) | search_figures(with_published(searches))


def save_all(results_dir: Path | str = DEFAULT_FOLDER) -> list[Path]:
    """Draw every figure that ``results_dir`` allows into its figures/; return the paths.

    Raises :class:`UserError` for a folder that does not exist or has no searches of the current
    bits version, and as :func:`~visualizations.figure_files.save` does.
    """
    published = {
        "figure3_mlp_depth": mlp_depth_figure(results_dir),
        "figure4_transformer_heads": transformer_heads_figure(results_dir),
        "ours_against_published": ours_against_published_figure(results_dir),
    }
    figures = _not_none(published) | other_figures(results_dir)
    if not figures:
        raise UserError(f"no finished searches of bits version {BITS_VERSION} in {results_dir}")
    folder = Path(results_dir) / "figures"
    return [path for name, figure in figures.items() for path in save(figure, name, folder)]


def _not_none(figures: Mapping[str, Figure | None]) -> dict[str, Figure]:
    return {name: figure for name, figure in figures.items() if figure is not None}
