"""The published figures, our measurements beside the published ones.

Points are mean +- sample std over repeats, in the published convention (first_failure), of the
current bits version (training/bits.py). What has not been measured is marked, not guessed.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from mlp_experiments.mlp_utils import SPEC as MLP
from study.comparison import comparison_table, every_published_row
from threshold_search.log.results_folder import DEFAULT_FOLDER
from training.bits import BITS_VERSION
from training.errors import UserError
from transformer_experiments.transformer_utils import SPEC as TRANSFORMER
from visualizations.drawing import (
    GREY,
    Handle,
    floats,
    legend,
    log_limits,
    mark_capped,
    mark_missing,
    new_figure,
    own_style,
    plain_log_ticks,
    repeats_text,
    style_of,
    titled,
)
from visualizations.results import PAPER_PROTOCOL
from visualizations.threshold_lines import line_figure


@own_style()
def mlp_depth_figure(
    results_dir: Path | str = DEFAULT_FOLDER,
    protocol: str = PAPER_PROTOCOL,
    bits: int = BITS_VERSION,
) -> Figure:
    """Published Figure 3: MLP threshold against depth, one line per budget."""
    table = comparison_table(MLP.name, results_dir, protocol, bits)
    title = titled("MLP: threshold against depth", protocol, bits)
    labels = {budget: f"budget {budget:,}" for budget in table["budget"]}
    return line_figure(table, "num_layers", "budget", title, "depth (hidden layers)", labels)


@own_style()
def transformer_heads_figure(
    results_dir: Path | str = DEFAULT_FOLDER,
    num_layers: int = 1,
    protocol: str = PAPER_PROTOCOL,
    bits: int = BITS_VERSION,
) -> Figure:
    """Published Figure 4: transformer threshold against heads, one line per width (budget).

    Raises :class:`UserError` for a depth that was not published.
    """
    table = comparison_table(TRANSFORMER.name, results_dir, protocol, bits)
    depths = table["num_layers"].unique()
    if num_layers not in depths:
        raise UserError(f"num_layers must be a published depth ({depths[0]} to {depths[-1]})")
    table = table[table["num_layers"] == num_layers]
    layers = "layer" if num_layers == 1 else "layers"
    title = f"Transformer, {num_layers} {layers}: threshold against attention heads"
    title = titled(title, protocol, bits)
    labels = {width: f"d = {width}" for width in table["hidden_size"]}
    sizes = zip(table["hidden_size"], table["num_parameters"], strict=True)
    details = {width: f", {parameters:,} parameters" for width, parameters in sizes}
    return line_figure(
        table, "num_heads", "hidden_size", title, "attention heads", labels, True, details
    )


@own_style()
def ours_against_published_figure(
    results_dir: Path | str = DEFAULT_FOLDER,
    protocol: str = PAPER_PROTOCOL,
    bits: int = BITS_VERSION,
) -> Figure:
    """Scatter of our mean against the published mean, one point per measured row."""
    table = every_published_row(results_dir, protocol, bits)
    title = titled("Ours against published", protocol, bits)
    if table["published_mean"].isna().all():
        title += "\n(there are no published numbers)"
    figure, axes = new_figure(title, size=(5.2, 5.6))
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
