"""Draw the published figures from the results CSVs, our measurements beside the published ones.

    python visualizations/figures.py
    python visualizations/figures.py --results-dir runs/first-search

Writes each figure as PNG and PDF into DIR/figures/. Points are mean +- sample std over repeats, in
the published convention (first_failure), of the current bits version (training/bits.py). What has
not been measured is marked, not guessed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from command_line.files import write_atomically
from command_line.parser import Parser, run
from threshold_search.results_folder import DEFAULT_FOLDER
from training.bits import BITS_VERSION
from training.errors import UserError
from visualizations.comparison import PAPER_PROTOCOL, comparison_table, readable

__all__ = [
    "comparison_table",
    "mlp_depth_figure",
    "ours_against_published_figure",
    "readable",
    "save",
    "save_all",
    "transformer_heads_figure",
]

# Okabe-Ito colours of clearly different lightness, each with a marker of its own.
BUDGET_STYLES = (("#000000", "o", 6), ("#0072B2", "s", 6), ("#E69F00", "^", 7.5))
MODEL_STYLES = {"mlp": ("MLP", "#0072B2", "o"), "transformer": ("transformer", "#000000", "^")}
GREY = "0.5"
PUBLISHED_REPEATS = 5
THRESHOLD_LABEL = "memorization threshold\n(first failing size, sequences)"
CROSS_HEIGHT = 0.03  # of the axes


def mlp_depth_figure(
    results_dir: Path | str = DEFAULT_FOLDER,
    protocol: str = PAPER_PROTOCOL,
    bits: int = BITS_VERSION,
) -> Figure:
    """Published Figure 3: MLP threshold against depth, one line per budget."""
    table = comparison_table("mlp", results_dir, protocol, bits)
    figure, axes = _new_figure("MLP: threshold against depth", protocol, bits)
    names = {budget: (f"budget {budget:,}", "") for budget in table["budget"].unique()}
    _draw_lines(axes, table, "num_layers", names, lambda depth, shift: depth + shift)
    axes.xaxis.set_major_locator(FixedLocator(sorted(table["num_layers"].unique())))
    axes.set_xlabel("depth (hidden layers)")
    return figure


def transformer_heads_figure(
    results_dir: Path | str = DEFAULT_FOLDER,
    num_layers: int = 1,
    protocol: str = PAPER_PROTOCOL,
    bits: int = BITS_VERSION,
) -> Figure:
    """Published Figure 4: transformer threshold against heads, one line per width (budget).

    Raises :class:`UserError` for a depth that was not published.
    """
    table = comparison_table("transformer", results_dir, protocol, bits)
    depths = table["num_layers"].unique()
    if num_layers not in depths:
        raise UserError(f"num_layers must be a published depth ({depths[0]} to {depths[-1]})")
    table = table[table["num_layers"] == num_layers]
    layers = "layer" if num_layers == 1 else "layers"
    title = f"Transformer, {num_layers} {layers}: threshold against attention heads"
    figure, axes = _new_figure(title, protocol, bits)
    names = {
        row.budget: (f"d = {row.hidden_size}", f", {row.num_parameters:,} parameters")
        for row in table.itertuples()
    }
    axes.set_xscale("log", base=2)
    _draw_lines(axes, table, "num_heads", names, lambda heads, shift: heads * 2**shift)
    heads = sorted(table["num_heads"].unique())
    axes.xaxis.set_major_locator(FixedLocator(heads))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("attention heads")
    return figure


def ours_against_published_figure(
    results_dir: Path | str = DEFAULT_FOLDER,
    protocol: str = PAPER_PROTOCOL,
    bits: int = BITS_VERSION,
) -> Figure:
    """Scatter of our mean against the published mean, one point per measured row."""
    tables = {model: comparison_table(model, results_dir, protocol, bits) for model in MODEL_STYLES}
    figure, axes = _new_figure("Ours against published", protocol, bits, size=(5.2, 5.6))
    everything = pd.concat(tables.values())
    bottom, top = _log_limits(everything)
    axes.set(xscale="log", yscale="log", xlim=(bottom, top), ylim=(bottom, top), aspect="equal")
    (diagonal,) = axes.plot([bottom, top], [bottom, top], color=GREY, linewidth=1, linestyle=":")
    diagonal.set_label("ours = published")
    handles, notes = [diagonal], []
    for model, (name, color, marker) in MODEL_STYLES.items():
        rows = tables[model][tables[model]["repeats"] > 0]
        handles.append(
            axes.errorbar(
                rows["published_mean"],
                rows["ours_mean"],
                xerr=rows["published_std"],
                yerr=rows["ours_std"],
                label=f"{name}, ours {_repeats(rows)}",
                color=color,
                marker=marker,
                markersize=5.5,
                markerfacecolor=color if model == "mlp" else "white",
                linestyle="none",
                elinewidth=0.7,
                capsize=1.5,
                zorder=4 if model == "mlp" else 3,
            )
        )
        notes += _mark_capped(axes, rows["published_mean"], rows)
    missing = everything[everything["repeats"] == 0]
    label = f"not measured ({len(missing)} of {len(everything)} rows)"
    notes += _mark_missing(axes, missing["published_mean"], label)
    for axis in (axes.xaxis, axes.yaxis):
        _plain_log_axis(axis, bottom, top)
    axes.set_xlabel("published threshold (first failing size, sequences)")
    axes.set_ylabel("our threshold (first failing size, sequences)")
    _legend(figure, [*handles, *notes])
    return figure


def save(figure: Figure, name: str, folder: Path | str) -> list[Path]:
    """Write ``name``.png (200 dpi) and ``name``.pdf into ``folder``; return their paths.

    Equal figures give equal bytes: the files hold no dates. Raises :class:`UserError` when the
    folder cannot be written.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from None
    png, pdf = folder / f"{name}.png", folder / f"{name}.pdf"
    write_atomically(png, lambda file: figure.savefig(file, format="png", dpi=200))
    with matplotlib.rc_context({"pdf.fonttype": 42}):  # TrueType: text stays text
        undated = {"CreationDate": None}
        write_atomically(pdf, lambda file: figure.savefig(file, format="pdf", metadata=undated))
    return [png, pdf]


def save_all(results_dir: Path | str = DEFAULT_FOLDER) -> list[Path]:
    """Draw every figure from ``results_dir`` and write it to its figures/; return the paths."""
    figures = {
        "figure3_mlp_depth": mlp_depth_figure(results_dir),
        "figure4_transformer_heads": transformer_heads_figure(results_dir),
        "ours_against_published": ours_against_published_figure(results_dir),
    }
    folder = Path(results_dir) / "figures"
    return [path for name, figure in figures.items() for path in save(figure, name, folder)]


def _new_figure(
    title: str, protocol: str, bits: int, size: tuple[float, float] = (6.8, 5.0)
) -> tuple[Figure, Axes]:
    """Return a figure of ``size`` inches, outside pyplot, and its axes."""
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    axes = figure.add_subplot()
    unusual = [protocol] * (protocol != PAPER_PROTOCOL)
    unusual += [f"bits version {bits}"] * (bits != BITS_VERSION)
    axes.set_title(f"{title}\n({', '.join(unusual)})" if unusual else title, fontsize=11)
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _draw_lines(
    axes: Axes,
    table: pd.DataFrame,
    x_column: str,
    names: dict[int, tuple[str, str]],
    shifted: Callable[[pd.Series, float], pd.Series],
) -> None:
    """Draw ours and published against ``x_column``, one line each per budget, and the legend.

    ``names`` gives each budget its name and what the legend adds to it once. ``shifted(x, s)``
    moves points sideways by ``s``, a fraction of the distance between two, so that error bars do
    not hide one another.
    """
    bottom, top = _log_limits(table)
    axes.set(yscale="log", ylim=(bottom, top), ylabel=THRESHOLD_LABEL)
    _plain_log_axis(axes.yaxis, bottom, top)
    ours, published, notes = [], [], {}
    for index, (budget, (name, detail)) in enumerate(names.items()):
        rows = table[table["budget"] == budget].sort_values(x_column)
        centre = 0.2 * (index - 1)
        x_published, x = (shifted(rows[x_column], centre + side) for side in (-0.05, 0.05))
        label = f"{name}, published (n = {PUBLISHED_REPEATS})"
        published.append(_line(axes, x_published, rows, "published", label, index))
        label = f"{name}{detail}, ours ({_repeats(rows)})"
        ours.append(_line(axes, x, rows, "ours", label, index))
        missing = rows["repeats"] == 0
        for mark in (_mark_capped(axes, x, rows), _mark_missing(axes, x[missing])):
            notes.update({handle.get_label(): handle for handle in mark})
    # Two columns, filled from the top: ours and a note, published and perhaps a second note.
    notes = list(notes.values())
    _legend(axes.figure, [*ours, *notes[:1], *published, *notes[1:]])


def _line(
    axes: Axes, x: pd.Series, rows: pd.DataFrame, source: str, label: str, style: int
) -> ErrorbarContainer:
    """Draw one line with error bars; it is broken where a row was not measured (NaN)."""
    is_ours = source == "ours"
    color, marker, size = BUDGET_STYLES[style]
    line = axes.errorbar(
        x,
        rows[f"{source}_mean"],
        yerr=rows[f"{source}_std"],
        label=label,
        color=color,
        marker=marker,
        markersize=size,
        markerfacecolor=color if is_ours else "white",
        linestyle="-" if is_ours else "--",
        linewidth=1.6 if is_ours else 1.0,
        elinewidth=1.0,
        capsize=2.5,
        zorder=3 if is_ours else 2,
    )
    for bar in line.lines[2]:
        bar.set_linestyle("-")
    return line


def _mark_missing(axes: Axes, x: pd.Series, label: str = "not measured") -> list[Line2D]:
    """Put a grey cross at the bottom of the axes for every ``x``; return its legend handle."""
    if x.empty:
        return []
    return axes.plot(
        x,
        np.full(len(x), CROSS_HEIGHT),
        transform=axes.get_xaxis_transform(),
        label=label,
        color=GREY,
        marker="x",
        markersize=5,
        linestyle="none",
    )


def _mark_capped(axes: Axes, x: pd.Series, rows: pd.DataFrame) -> list[Line2D]:
    """Put an arrow above every point that is only a lower bound; return its legend handle."""
    capped = rows["capped"] > 0
    if not capped.any():
        return []
    above = ScaledTranslation(0, 10 / 72, axes.figure.dpi_scale_trans)
    return axes.plot(
        x[capped],
        (rows["ours_mean"] + rows["ours_std"].fillna(0))[capped],
        transform=axes.transData + above,
        label="at least (size limit reached)",
        color=GREY,
        clip_on=False,
        marker=r"$\uparrow$",
        markersize=8,
        linestyle="none",
    )


def _repeats(rows: pd.DataFrame) -> str:
    counts = sorted(set(rows.loc[rows["repeats"] > 0, "repeats"]))
    if not counts:
        return "not measured"
    return f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"


def _log_limits(table: pd.DataFrame) -> tuple[float, float]:
    """Return limits around all means and upper error bars, with room for the crosses below."""
    means = table[["ours_mean", "published_mean"]].to_numpy()
    spreads = table[["ours_std", "published_std"]].fillna(0).to_numpy()
    return np.nanmin(means) / 2.2, np.nanmax(means + spreads) * 1.8


def _plain_log_axis(axis, bottom: float, top: float) -> None:
    steps = (1.0,) if top / bottom > 300 else (1.0, 2.0, 5.0)
    axis.set_major_locator(LogLocator(subs=steps))
    axis.set_minor_locator(LogLocator(subs=range(2, 10)))
    axis.set_minor_formatter("")
    axis.set_major_formatter(lambda value, _: f"{value:,.10g}")


def _legend(figure: Figure, handles: list) -> None:
    unique = {handle.get_label(): handle for handle in handles}
    figure.legend(
        handles=list(unique.values()),
        title="mean and sample standard deviation over n repeats",
        loc="outside lower center",
        ncols=2,
        frameon=False,
        fontsize=9,
        title_fontsize=9,
        handlelength=2.6,
    )


def main() -> None:
    """Read the flag, write the figures, say where they are."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--results-dir",
        type=Path,
        metavar="DIR",
        default=DEFAULT_FOLDER,
        help="folder of the results CSVs; the figures go to its figures/",
    )
    for path in save_all(parser.parse_args().results_dir):
        print(path)


if __name__ == "__main__":
    run(main)
