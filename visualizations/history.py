"""The training of one model, from the CSV that ``train_*.py --history`` wrote."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from command_line.training_script import HISTORY_COLUMNS
from training.errors import UserError
from visualizations.drawing import (
    drawable_figure,
    floats,
    light_grid,
    mark_missing,
    own_style,
    style_of,
)

MOST_MARKED = 60  # evaluations; a marker at each of more would hide the line
_LABELS = {
    "loss": "loss\n(nats per token)",
    "accuracy": "accuracy\n(share of tokens)",
    "learning_rate": "learning rate",
}


def read_history(path: Path) -> pd.DataFrame:
    """Return one row per evaluation, with HISTORY_COLUMNS: nats per token, a share of tokens.

    Raises :class:`UserError` for a file that is no history.
    """
    try:
        history = pd.read_csv(path)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:  # no text, no table, nothing at all
        raise UserError(f"{path} is no history of train_*.py --history") from None
    is_numeric = [pd.api.types.is_numeric_dtype(history[name]) for name in history]
    if tuple(history) == HISTORY_COLUMNS and history.empty:
        raise UserError(f"{path} has no epochs to draw")
    if tuple(history) != HISTORY_COLUMNS or not all(is_numeric) or history["epoch"].isna().any():
        raise UserError(
            f"{path} is no history of train_*.py --history: it should have numbers in the columns "
            + ", ".join(HISTORY_COLUMNS)
        )
    return history


@own_style()
def history_figure(history: pd.DataFrame, title: str) -> Figure:
    """Return loss, accuracy and learning rate of :func:`read_history` over the epochs.

    The loss has a logarithmic axis where it is always positive; a cross marks one that is not
    finite.
    """
    figure = drawable_figure((6.8, 6.0))
    panels = figure.subplots(len(_LABELS), sharex=True, height_ratios=[3, 3, 2])
    epochs = floats(history["epoch"])
    marker = "." if len(history) <= MOST_MARKED else ""
    for index, (axes, (column, label)) in enumerate(zip(panels, _LABELS.items(), strict=True)):
        values = floats(history[column])
        is_finite = np.isfinite(values)
        axes.plot(
            epochs, np.where(is_finite, values, np.nan), color=style_of(index).color, marker=marker
        )
        if missing := mark_missing(axes, epochs[~is_finite], "not finite"):
            axes.legend(handles=missing, frameon=False, fontsize=9)
        if column == "loss" and is_finite.any() and (values[is_finite] > 0).all():
            axes.set_yscale("log")
        axes.set_ylabel(label)
        light_grid(axes)
    panels[0].set_title(title, fontsize=11)
    panels[-1].set_xlabel("epoch")
    return figure
