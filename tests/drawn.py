"""What a figure shows, read back from matplotlib's objects."""

import math

import numpy as np
from matplotlib.container import ErrorbarContainer


def only_axes(figure):
    (axes,) = figure.axes
    return axes


def drawn(axes, *words):
    """Return (x, mean, half length of the vertical bar) of the line whose label has ``words``."""
    (line,) = [
        container
        for container in axes.containers
        if isinstance(container, ErrorbarContainer)
        and all(word in container.get_label() for word in words)
    ]
    x, y = line.lines[0].get_data(orig=False)
    bars = [bar.get_segments() for bar in line.lines[2]][-1]
    halves = [(bar[1][1] - bar[0][1]) / 2 if len(bar) else math.nan for bar in bars]
    return x, y, np.array(halves)


def crosses(axes):
    return np.concatenate(
        [
            line.get_xdata()
            for line in axes.lines
            if str(line.get_label()).startswith("not measured")
        ]
    )


def legend_labels(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]
