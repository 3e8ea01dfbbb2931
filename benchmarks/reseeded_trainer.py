"""Threshold searches by ``transformers.Trainer``, re-seeded by every construction as it is.

    python benchmarks/reseeded_trainer.py  # about two hours
    python benchmarks/reseeded_trainer.py --only 30x5  # print one configuration, write nothing

The published experiment built a Trainer per probe, and a Trainer seeds Python, NumPy and torch with
42 when it is constructed. Here the same is done: within a process, every probe draws its data and
its initial weights from the global generators, then constructs the Trainer, which shuffles by
itself. So from the second probe on, the data depend on n alone, the order of the batches on n and
the epoch, and the initial weights on how much of torch's generator the probe before has used.
Five searches run one after the other in one process, which starts with seeds of its own (--seed),
in place of the entropy of a fresh process. The mappings are ours, drawn from a seed that NumPy's
global generator gives: it is the mechanism that is shown, not the published study's own numbers.

Prints the table and writes results/benchmarks/reseeded_trainer.csv, one row per search, after every
configuration. Needs the packages of `.[test]`.
"""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import report
from search_times import PUBLISHED_SETTINGS, timed_search

from command_line.parser import Parser, positive_int, run
from dataset.synthetic_generator import generate_mappings
from mlp_experiments.mlp_utils import MLPArchitecture
from training.spec import Architecture
from transformer_experiments.transformer_utils import TransformerArchitecture

CONFIGURATIONS: list[Architecture] = [
    MLPArchitecture(49, 1),
    MLPArchitecture(41, 2),
    MLPArchitecture(33, 4),
    MLPArchitecture(30, 5),
    TransformerArchitecture(32, 380, 4, 1),
]
# What keeps the time down and draws nothing: larger evaluation batches, one checkpoint on disk.
SETTINGS = {
    **PUBLISHED_SETTINGS,
    "per_device_eval_batch_size": 1024,
    "save_total_limit": 1,
    "save_only_model": True,
}


def memorizes_reseeded(architecture: Architecture) -> Callable[[int], bool]:
    """Return the verdict of the Trainer on n sequences; it draws from the global generators."""
    from trainer_oracle import train_with_trainer

    protocol = architecture.spec.protocol()

    def memorizes(n: int) -> bool:
        data = generate_mappings(n, seed=int(np.random.randint(2**31)))
        module = architecture.spec.build(architecture, protocol.dropout)
        tensors = torch.from_numpy(data.inputs), torch.from_numpy(data.labels)
        with tempfile.TemporaryDirectory() as folder:
            run = train_with_trainer(module, *tensors, protocol, None, Path(folder), **SETTINGS)
        return run.result.memorized

    return memorizes


def searches(architecture: Architecture, repeats: int, seed: int) -> list[dict]:
    """Return one row per search, all of one process that starts from ``seed``."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    rows = []
    for repeat in range(repeats):
        seconds, probes, bounds = timed_search(memorizes_reseeded(architecture))
        rows.append(
            {
                "model": architecture.spec.name,
                "configuration": architecture.name,
                "seed": seed,
                "repeat": repeat,
                "first_failure": bounds.first_failure,
                "probes": probes,
                "seconds": seconds,
            }
        )
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Search, print and write the table."""
    parser = Parser(__doc__)
    names = [architecture.name for architecture in CONFIGURATIONS]
    parser.add_argument("--only", choices=names, help="one configuration; writes nothing")
    parser.add_argument(
        "--repeats", type=positive_int, default=5, metavar="N", help="searches per configuration"
    )
    parser.add_argument(
        "--seed", type=positive_int, default=1, metavar="N", help="seed of every process's start"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for architecture in CONFIGURATIONS:
        if args.only in (None, architecture.name):
            rows += searches(architecture, args.repeats, args.seed)
            if not args.only:
                report(rows, "reseeded_trainer")


if __name__ == "__main__":
    run(main)
