"""What the figures are drawn with: lines with error bars, marks, logarithmic axes, the legend.

Tables are those of visualizations/summary.py's ``beside_published``: ``ours_*``, ``published_*``,
``repeats``, ``capped``, one row per point.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backend_bases import RendererBase
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation
from numpy.typing import NDArray

GREY = "0.5"
PLAIN = "{x:,.10g}"  # a tick's number such as 1,000
CROSS_HEIGHT = 0.03  # of the axes
MOST_TICKS = 10  # an axis of so many values has one tick at each
CLOSEST_TICKS = 0.04  # of the axis
WIDEST_ROW = 80  # characters of a legend with two columns
ROW_HEIGHT = 0.19  # of the legend, inches

Values = NDArray[np.float64]
Handle = Artist | ErrorbarContainer


@dataclass(frozen=True)
class Style:
    """Colour, marker and marker size (points) of one series."""

    color: str
    marker: str
    size: float


# Okabe-Ito colours, the first ones of clearly different lightness, each with a marker of its own.
_STYLES = (
    Style("#000000", "o", 6),
    Style("#0072B2", "s", 6),
    Style("#E69F00", "^", 7.5),
    Style("#009E73", "D", 5.5),
    Style("#D55E00", "v", 7.5),
    Style("#CC79A7", "P", 7),
    Style("#56B4E9", "X", 7),
)


def style_of(index: int) -> Style:
    """Return the style of a figure's series number ``index``; colours repeat with new markers."""
    around, place = divmod(index, len(_STYLES))
    shape = _STYLES[(place + around) % len(_STYLES)]
    return Style(_STYLES[place].color, shape.marker, shape.size)


@contextmanager
def own_style() -> Iterator[None]:
    """Set Matplotlib's own defaults, whatever a user's matplotlibrc says, and restore it after."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams["pdf.fonttype"] = 42  # TrueType: text stays text
        yield


class OwnStyleFigure(Figure):
    """A figure that is drawn in :func:`own_style`; it should be made in it, too."""

    @own_style()
    def draw(self, renderer: RendererBase) -> None:
        """Draw everything; ticks, for one, take their settings only now."""
        super().draw(renderer)

    @own_style()
    def savefig(self, *args: Any, **kwargs: Any) -> None:
        """Write a file."""
        super().savefig(*args, **kwargs)


def drawable_figure(size: tuple[float, float]) -> Figure:
    """Return an empty figure of ``size`` inches, outside pyplot."""
    return OwnStyleFigure(figsize=size, dpi=100, layout="constrained")


def new_figure(title: str, size: tuple[float, float] = (6.8, 5.0)) -> tuple[Figure, Axes]:
    """Return a figure of ``size`` inches, outside pyplot, and its axes."""
    figure = drawable_figure(size)
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=11)
    light_grid(axes)
    return figure, axes


def light_grid(axes: Axes) -> None:
    """Put a light grid behind what is drawn, and no frame above or on the right."""
    axes.grid(color="0.9", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def floats(column: pd.Series) -> Values:
    """Return a column as float64, NaN for NA."""
    return column.to_numpy(dtype=np.float64, na_value=np.nan)


def error_line(
    axes: Axes, x: Values, rows: pd.DataFrame, source: str, label: str, style: Style, joined: bool
) -> ErrorbarContainer:
    """Draw mean +- sample std of ``source``, "ours" or "published".

    ``joined`` points have a line through them, broken where a row was not measured (NaN).
    """
    is_ours = source == "ours"
    line_style = "-" if is_ours else "--"
    line = axes.errorbar(
        x,
        floats(rows[f"{source}_mean"]),
        yerr=floats(rows[f"{source}_std"]),
        label=label,
        color=style.color,
        marker=style.marker,
        markersize=style.size,
        markerfacecolor=style.color if is_ours else "white",
        linestyle=line_style if joined else "none",
        linewidth=1.6 if is_ours else 1.0,
        elinewidth=1.0,
        capsize=2.5,
        zorder=3 if is_ours else 2,
    )
    for bar in line.lines[2]:
        bar.set_linestyle("-")
    return line


def mark_missing(axes: Axes, x: Values, label: str = "not measured") -> list[Line2D]:
    """Put a grey cross at the bottom of the axes for every ``x``; return its legend handle."""
    if not len(x):
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


def mark_capped(figure: Figure, axes: Axes, x: Values, rows: pd.DataFrame) -> list[Line2D]:
    """Put an arrow above every point that is only a lower bound; return its legend handle."""
    capped = floats(rows["capped"]) > 0
    if not capped.any():
        return []
    above = ScaledTranslation(0, 10 / 72, figure.dpi_scale_trans)
    tops = floats(rows["ours_mean"]) + floats(rows["ours_std"].fillna(0))
    return axes.plot(
        x[capped],
        tops[capped],
        transform=axes.transData + above,
        label="at least (size limit reached)",
        color=GREY,
        clip_on=False,
        marker=r"$\uparrow$",
        markersize=8,
        linestyle="none",
    )


def repeats_text(rows: pd.DataFrame) -> str:
    """Return how many repeats the measured rows have, such as "n = 3 to 5"."""
    counts = sorted(set(rows.loc[rows["repeats"] > 0, "repeats"]))
    if not counts:
        return "not measured"
    return f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"


def log_limits(table: pd.DataFrame) -> tuple[float, float]:
    """Return limits around all means and upper error bars, with room for the crosses below.

    Without any mean they are of no meaning.
    """
    means = table[["ours_mean", "published_mean"]].to_numpy(dtype=float)
    spreads = table[["ours_std", "published_std"]].fillna(0).to_numpy(dtype=float)
    if np.isnan(means).all():
        return 1.0, 1000.0
    return float(np.nanmin(means)) / 2.2, float(np.nanmax(means + spreads)) * 1.8


def plain_log_ticks(axis: Axis, bottom: float, top: float) -> None:
    """Label a logarithmic axis from ``bottom`` to ``top`` with plain numbers such as 1,000."""
    ratio = top / bottom
    if ratio < 4:
        axis.set_major_locator(MaxNLocator(5))
    elif ratio < 10:
        axis.set_major_locator(LogLocator(subs=(1.0, 1.5, 2.0, 3.0, 5.0, 7.0)))
    else:
        axis.set_major_locator(LogLocator(subs=(1.0,) if ratio > 300 else (1.0, 2.0, 5.0)))
    axis.set_minor_locator(LogLocator(subs=range(2, 10)))
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(PLAIN)


def finish_x_axis(axes: Axes, values: Values, is_log: bool) -> None:
    """Put a tick at every one of the ``values`` where they are few and apart; call it last."""
    if is_log:
        plain_log_ticks(axes.xaxis, *axes.get_xlim())
    axes.xaxis.set_major_formatter(PLAIN)
    span = np.ptp(np.log2(values) if is_log else values)
    are_few = len(np.unique(values)) <= MOST_TICKS
    if are_few and smallest_gap(values, is_log) >= CLOSEST_TICKS * span:
        axes.xaxis.set_major_locator(FixedLocator(np.unique(values).tolist()))
        axes.xaxis.set_minor_locator(NullLocator())


def smallest_gap(values: Values, is_log: bool) -> float:
    """Return the smallest distance of two different ``values`` on the axis, at most a fifth of it.

    In the units of the axis, or in octaves if it is logarithmic; 1 for one value.
    """
    places = np.unique(np.log2(values) if is_log else values)
    if len(places) == 1:
        return 1.0
    return float(min(np.diff(places).min(), np.ptp(places) / 5))


def shifted(values: Values, by: float, is_log: bool) -> Values:
    """Return ``values`` moved along the axis, ``by`` as in :func:`smallest_gap`."""
    return values * 2**by if is_log else values + by


def legend(
    figure: Figure, left: Sequence[Handle], right: Sequence[Handle | None], notes: Sequence[Handle]
) -> None:
    """Put a legend of two columns below the axes, and make the figure higher if it is long.

    Handles of ``left`` and ``right`` stand side by side; None leaves a place empty. ``notes``, each
    label once, follow in the shorter column. Long labels make it one column.
    """
    empty = Line2D([], [], linestyle="none", label=" ")
    unique = {str(note.get_label()): note for note in notes}.values()
    first, second = list(left), [empty if handle is None else handle for handle in right]
    for note in unique:
        (first if len(first) <= len(second) else second).append(note)
    if _widest(first) + _widest(second) > WIDEST_ROW:
        handles, columns = [handle for handle in [*first, *second] if handle is not empty], 1
    else:
        handles, columns = [*first, *second, *[empty] * (len(first) - len(second))], 2
    rows = len(handles) // columns
    figure.set_figheight(figure.get_figheight() + ROW_HEIGHT * max(0, rows - 4))
    whole_legend(figure, handles, columns)


def whole_legend(figure: Figure, handles: Sequence[Handle], columns: int | None = None) -> None:
    """Put the legend of a whole figure below it, in one row unless ``columns`` says otherwise."""
    figure.legend(
        handles=list(handles),
        title="mean and sample standard deviation over n repeats",
        loc="outside lower center",
        ncols=columns or max(1, len(handles)),
        frameon=False,
        fontsize=9,
        title_fontsize=9,
        handlelength=2.6,
    )


def _widest(handles: Sequence[Handle]) -> int:
    return max((len(str(handle.get_label())) for handle in handles), default=0)
