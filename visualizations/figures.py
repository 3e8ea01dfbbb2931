"""Draw thresholds from the results CSVs, our measurements beside the published ones.

    python visualizations/figures.py
    python visualizations/figures.py --results-dir runs/first-search

Writes the published figures as PNG and PDF into DIR/figures/. Points are mean +- sample std over
repeats, in the published convention (first_failure), of the current bits version
(training/bits.py). What has not been measured is marked, not guessed.

``threshold_figure`` draws any other set of configurations:

    from visualizations.figures import save, threshold_figure
    from visualizations.results import load_results, select

    searches = select(load_results("runs/widths"))
    save(threshold_figure(searches, x="hidden_size", series="num_layers"), "widths", "runs/widths")
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from numbers import Integral
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # this checkout's code, whichever one the environment has installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from command_line.parser import begin

    begin()
    os.environ["MPLBACKEND"] = "agg"  # files are all that is drawn; another may not even exist

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from command_line.files import write_whole
from command_line.parser import Parser, run, user_path
from mlp_experiments.mlp_utils import SPEC as MLP
from threshold_search.results_folder import DEFAULT_FOLDER
from training.bits import BITS_VERSION
from training.errors import UserError
from transformer_experiments.transformer_utils import SPEC as TRANSFORMER
from visualizations.comparison import beside_published, comparison_table, every_published_row
from visualizations.drawing import (
    GREY,
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
    titled,
    unusual,
)
from visualizations.results import PAPER_PROTOCOL

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
    with_published: bool = True,
) -> Figure:
    """Return thresholds against the column ``x``, one line per value of the column ``series``.

    ``searches`` are rows of :func:`~visualizations.results.load_results`, of any models, with any
    columns of your own; repeats of one configuration become one point, mean +- sample std, in
    sequences. Where a configuration was published its published mean and std stand beside ours,
    unless ``with_published`` is false. Points of one ``x`` are moved sideways a little where they
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
    if not with_published:
        table[["published_mean", "published_std"]] = np.nan
    x_label = x_label or X_LABELS.get(x, x)
    title = title or f"threshold against {x_label}"
    kinds = _kinds(searches, series)
    if len(kinds) == 1:  # of all lines: said once, in the title
        details = {}
        title += f"\n({kinds[0]})" if kinds[0] else ""
    return _lines(table, x, series, title, x_label, labels or {}, log_x, details)


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
    return _lines(table, "num_layers", "budget", title, "depth (hidden layers)", labels)


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
    return _lines(
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


@own_style()
def save(figure: Figure, name: str, folder: Path | str) -> list[Path]:
    """Write ``name``.png (200 dpi) and ``name``.pdf into ``folder``; return their paths.

    Equal figures give equal bytes: the files hold no dates. Raises :class:`UserError` when the
    folder cannot be written.
    """
    folder = Path(folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from None
    png, pdf = folder / f"{name}.png", folder / f"{name}.pdf"
    undated = {"CreationDate": None}
    write_whole(png, lambda file: figure.savefig(file, format="png", dpi=200))
    write_whole(pdf, lambda file: figure.savefig(file, format="pdf", metadata=undated))
    return [png, pdf]


def save_all(results_dir: Path | str = DEFAULT_FOLDER) -> list[Path]:
    """Draw every published figure from ``results_dir`` into its figures/; return the paths."""
    figures = {
        "figure3_mlp_depth": mlp_depth_figure(results_dir),
        "figure4_transformer_heads": transformer_heads_figure(results_dir),
        "ours_against_published": ours_against_published_figure(results_dir),
    }
    folder = Path(results_dir) / "figures"
    return [path for name, figure in figures.items() for path in save(figure, name, folder)]


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
    """Return the protocols and bits versions among ``searches``, without what ``series`` says."""
    columns = [name for name in ("protocol", "bits") if name != series]
    usual = {"protocol": PAPER_PROTOCOL, "bits": BITS_VERSION}
    kinds = searches[columns].drop_duplicates().to_dict("records")
    return [unusual(**{**usual, **{str(k): v for k, v in kind.items()}}) for kind in kinds]


def _lines(
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


def main() -> None:
    """Read the flag, write the figures, say where they are."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--results-dir",
        type=user_path,
        metavar="DIR",
        default=DEFAULT_FOLDER,
        help="folder of the results CSVs; the figures go to its figures/",
    )
    for written in save_all(parser.parse_args().results_dir):
        print(written)


if __name__ == "__main__":
    run(main)
