"""Models trained per second when many are stacked on one device, against one after the other.

    python benchmarks/device_rates.py  # CUDA where there is one
    python benchmarks/device_rates.py --device cpu --models 1 4 --epochs 3

A model counts as 500 epochs on 512 sequences, evaluation included; the rate comes from the median
time of some epochs after the first two, which also capture the graph on CUDA. One after the other
means the reference loop on the same device. Prints the table and writes
results/benchmarks/device_rates.csv.
"""

from __future__ import annotations

import itertools
import statistics
import time

import torch
from machine import report

from command_line.flags import resolve_device
from command_line.parser import Parser, positive_int, run
from engines.engine import ReferenceEngine
from engines.stacked import StackedModels
from mlp_experiments.mlp_utils import MLPArchitecture
from training.probe import Probe
from training.session import train_stack
from training.spec import Architecture
from training.start import start_probe
from transformer_experiments.transformer_utils import TransformerArchitecture

CONFIGURATIONS: list[Architecture] = [
    MLPArchitecture(49, 1),
    TransformerArchitecture(64, 768, 32, 1),
]
SEQUENCES = 512
FULL_EPOCHS = 500
WARM_EPOCHS = 2


class Epochs:
    """Takes the time at the end of every epoch; an ``on_epoch`` for a loop or a stack."""

    def __init__(self) -> None:
        self._ends: list[float] = []

    def __call__(self, *_: object) -> None:
        """Note the time."""
        self._ends.append(time.perf_counter())

    def seconds(self) -> float:
        """Return the median time of an epoch."""
        ends = self._ends[WARM_EPOCHS - 1 :]
        return statistics.median(b - a for a, b in itertools.pairwise(ends))


def probes_of(architecture: Architecture, models: int, epochs: int) -> list[Probe]:
    """Return probes that train for ``epochs`` epochs after the warm ones."""
    epochs += WARM_EPOCHS
    protocol = architecture.spec.protocol(max_epochs=epochs, patience=0)
    return [Probe(architecture, protocol, 0, repeat, SEQUENCES) for repeat in range(models)]


def looped_rate(architecture: Architecture, epochs: int, device: str) -> float:
    """Return models per second by the reference loop, one after the other."""
    times = Epochs()
    ReferenceEngine(device).train(probes_of(architecture, 1, epochs), times)
    return 1 / (times.seconds() * FULL_EPOCHS)


def stacked_rate(architecture: Architecture, models: int, epochs: int, device: str) -> float:
    """Return models per second in a stack of ``models`` lanes, all in use."""
    times = Epochs()
    starts = [start_probe(probe) for probe in probes_of(architecture, models, epochs)]
    stack = StackedModels(starts, device, host_masks=False, lanes=models)
    train_stack(stack, starts, lambda index, _: times() if index == 0 else None)
    return models / (times.seconds() * FULL_EPOCHS)


def main() -> None:
    """Measure, print and write the table."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="where to train"
    )
    parser.add_argument(
        "--models",
        type=positive_int,
        metavar="M",
        nargs="+",
        default=[1, 16, 128],
        help="models in a stack",
    )
    parser.add_argument(
        "--epochs", type=positive_int, metavar="N", default=20, help="epochs measured"
    )
    args = parser.parse_args()
    device = resolve_device(args.device)
    torch.set_num_threads(1)
    name = torch.cuda.get_device_name() if device == "cuda" else device
    rows = []
    for architecture in CONFIGURATIONS:
        looped = looped_rate(architecture, args.epochs, device)
        for models in args.models:
            stacked = stacked_rate(architecture, models, args.epochs, device)
            rows.append(
                {
                    "configuration": f"{architecture.spec.name} {architecture.name}",
                    "device": name,
                    "models": models,
                    "looped_models_per_second": looped,
                    "stacked_models_per_second": stacked,
                    "speedup": stacked / looped,
                }
            )
    report(rows, "device_rates")


if __name__ == "__main__":
    run(main)
