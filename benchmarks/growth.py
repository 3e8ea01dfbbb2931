"""How the cost of an epoch grows with the number of sequences and with the parameters.

    python benchmarks/growth.py

Times training epochs (evaluation included) of the fast engine, one thread, for the one-layer MLP
and the d_ff = 4 * d_model transformer: over N at one size, over sizes at one N. Prints the table,
writes results/benchmarks/growth.csv and the figure results/figures/growth.png and .pdf.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import matplotlib.pyplot as plt
import torch
from machine import FOLDER, report, start_native
from tqdm import tqdm

from command_line.parser import Parser, run
from mlp_experiments.mlp_utils import MLPArchitecture
from training.probe import Probe
from training.spec import Architecture
from transformer_experiments.transformer_utils import TransformerArchitecture
from visualizations.figure_files import save

SIZES_N = (32, 64, 128, 256, 512, 1024, 2048, 4096)
# By what is varied: the architecture over SIZES_N, and the architectures, each at a fixed N.
FIXED_SIZE: tuple[Architecture, ...] = (
    MLPArchitecture(49, 1),
    TransformerArchitecture(32, 380, 4, 1),
)
FIXED_N: tuple[tuple[int, list[Architecture]], ...] = (
    (512, [MLPArchitecture(width, 1) for width in (12, 25, 49, 99, 199, 447, 895)]),
    (64, [TransformerArchitecture(d, 4 * d, 4, 1) for d in (16, 32, 64, 128)]),
)
MARKS = ("o-", "s--")  # of the models in the figure
ROUNDS = 40


def epoch_timer(architecture: Architecture, n: int) -> Callable[[], float]:
    """Return a function that times one epoch and its evaluation, in seconds."""
    probe = Probe(architecture, architecture.spec.protocol(), 0, 0, n)
    model, epochs = start_native(probe)

    def epoch() -> float:
        order, learning_rates = next(epochs)
        start = time.perf_counter()
        model.train_epoch(order, learning_rates)
        model.evaluate()
        return time.perf_counter() - start

    def seconds() -> float:
        epoch()  # fills the caches again
        return epoch()

    return seconds


def measure(points: list[tuple[str, Architecture, int]]) -> list[dict]:
    """Return one row per (what is varied, architecture, N): its best time.

    All take turns, because the machine's clock may change while they are measured.
    """
    timers = [epoch_timer(architecture, n) for _, architecture, n in points]
    best = [math.inf] * len(points)
    for _ in tqdm(range(ROUNDS), unit="round", disable=None):
        best = [min(least, timer()) for least, timer in zip(best, timers, strict=True)]
    return [
        {
            "varied": varied,
            "model": architecture.spec.name,
            "configuration": architecture.name,
            "num_parameters": architecture.num_parameters,
            "n": n,
            "seconds_per_epoch": seconds,
        }
        for (varied, architecture, n), seconds in zip(points, best, strict=True)
    ]


def draw(rows: list[dict]) -> plt.Figure:
    """Return the figure: left over N, right over parameters, both axes logarithmic."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True, layout="constrained")
    panels = (("n", "sequences N"), ("num_parameters", "parameters"))
    for axis, (varied, label) in zip(axes, panels, strict=True):
        for model, mark in zip(dict.fromkeys(r["model"] for r in rows), MARKS, strict=True):
            chosen = [r for r in rows if r["varied"] == varied and r["model"] == model]
            fixed = chosen[0]["configuration"] if varied == "n" else f"N = {chosen[0]['n']}"
            axis.plot(
                [r[varied] for r in chosen],
                [r["seconds_per_epoch"] for r in chosen],
                mark,
                label=f"{model}, {fixed}",
            )
        axis.set(xscale="log", yscale="log", xlabel=label)
        axis.legend()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("time per epoch (s, one CPU thread)")
    return figure


def main() -> None:
    """Measure, print, write, draw."""
    Parser(__doc__).parse_args()
    torch.set_num_threads(1)
    points = [("n", a, n) for a in FIXED_SIZE for n in SIZES_N]
    points += [("num_parameters", a, n) for n, architectures in FIXED_N for a in architectures]
    rows = measure(points)
    report(rows, "growth")
    save(draw(rows), "growth", FOLDER.parent / "figures")


if __name__ == "__main__":
    run(main)
