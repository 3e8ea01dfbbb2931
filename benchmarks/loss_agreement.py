"""How closely do the fast engine's losses follow the reference loop's?

    python benchmarks/loss_agreement.py
    python benchmarks/loss_agreement.py --seeds 20

Trains the same probes (weights, data, batch order, dropout masks) with the fast engine, with the
reference loop, and with the reference loop in float64, for 50 epochs at the paper's settings; a run
differs by the largest relative difference of the evaluation losses. Rounding grows in some runs;
the third pair of columns says how often the reference parts from itself in float64 by more than
1e-4, the second how often the engine does. A run ends early when everything is right. Prints the
table and writes results/benchmarks/loss_agreement.csv.
"""

from __future__ import annotations

import numpy as np
import torch
from machine import report, start_native
from tqdm import tqdm

from command_line.parser import Parser, positive_int, run
from engines.choice import choose_engine, fallback_note
from mlp_experiments.mlp_utils import MLPArchitecture
from training.errors import UserError
from training.loop import train
from training.probe import Probe
from training.spec import Architecture
from training.start import start_probe
from transformer_experiments.transformer_utils import TransformerArchitecture

EPOCHS = 50
TOLERANCE = 1e-4
CONFIGURATIONS: list[tuple[Architecture, float, tuple[int, ...]]] = [
    (MLPArchitecture(0, 0), 0.0, (2, 77, 150, 300, 610)),
    (MLPArchitecture(49, 1), 0.0, (2, 33, 128, 250, 600)),
    (MLPArchitecture(33, 4), 0.0, (2, 16, 40, 64, 128)),
    (TransformerArchitecture(32, 380, 4, 1), 0.0, (2, 8, 16, 33, 64)),
    (TransformerArchitecture(32, 380, 4, 1), 0.1, (2, 8, 16, 33, 64)),
]
PAIRS = (("fast", "reference"), ("fast", "float64"), ("reference", "float64"))


def fast_losses(probe: Probe) -> np.ndarray:
    """Return the fast engine's evaluation loss after every epoch, nats per token."""
    model, epochs = start_native(probe)
    losses = []
    for _ in range(EPOCHS):
        model.train_epoch(*next(epochs))
        losses.append(model.evaluate()[0])
    return np.array(losses)


def reference_losses(probe: Probe, dtype: torch.dtype) -> np.ndarray:
    """Return the reference loop's evaluation losses in ``dtype``, nats per token.

    Fewer than EPOCHS if the loop stopped because everything was right.
    """
    start = start_probe(probe)
    losses: list[float] = []
    train(
        start.module.to(dtype),
        *start.tensors(),
        probe.protocol,
        start.orders,
        start.masks,
        lambda record: losses.append(record.loss),
    )
    return np.array(losses)


def largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest relative difference over the epochs that both have."""
    epochs = min(len(a), len(b))
    return float(np.abs(a[:epochs] / b[:epochs] - 1).max())


def main() -> None:
    """Train, print and write the table."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--seeds", type=positive_int, metavar="N", default=8, help="runs of every size"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    kinds = [(a, a.spec.protocol()) for a, *_ in CONFIGURATIONS]
    engines = {kind: choose_engine("fast", "cpu", *kind) for kind in kinds}
    if note := fallback_note("fast", "cpu", engines):
        raise UserError(f"nothing to compare: {note}")
    rows = []
    total = args.seeds * sum(len(sizes) for _, _, sizes in CONFIGURATIONS)
    with tqdm(total=total, unit="run", disable=None) as bar:
        for architecture, dropout, sizes in CONFIGURATIONS:
            # These runs last 50 epochs unless everything is right before.
            protocol = architecture.spec.protocol(max_epochs=EPOCHS, patience=0, dropout=dropout)
            differences: dict[tuple[str, str], list[float]] = {pair: [] for pair in PAIRS}
            for n in sizes:
                for seed in range(args.seeds):
                    probe = Probe(architecture, protocol, seed, 0, n)
                    losses = {
                        "fast": fast_losses(probe),
                        "reference": reference_losses(probe, torch.float32),
                        "float64": reference_losses(probe, torch.float64),
                    }
                    for a, b in PAIRS:
                        differences[a, b].append(largest_difference(losses[a], losses[b]))
                    bar.update()
            row = {
                "configuration": f"{architecture.spec.name} {architecture.name}",
                "dropout": dropout,
            }
            row |= {"sizes": " ".join(map(str, sizes)), "runs": len(sizes) * args.seeds}
            for (a, b), values in differences.items():
                row[f"{a}_vs_{b}_parted"] = sum(value > TOLERANCE for value in values)
                row[f"{a}_vs_{b}_median"] = float(np.median(values))
            rows.append(row)
    report(rows, "loss_agreement")


if __name__ == "__main__":
    run(main)
