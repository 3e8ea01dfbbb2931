"""Whole threshold searches: the fast engine against ``transformers.Trainer``.

    python benchmarks/search_times.py  # about half an hour
    python benchmarks/search_times.py --only 49x1

The Trainer runs as the published experiment did: evaluation in batches of 8 and a full checkpoint
on disk after every epoch, deleted after the probe. One search per configuration, one thread; both
sides draw the same data and initial weights. Then one search command with one worker and with two
in turn, the fastest of three rounds each. Needs the packages of `.[test]`. Prints the
tables and writes results/benchmarks/search_times.csv and worker_times.csv.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import report

from command_line.parser import Parser, run
from engines.choice import choose_engine
from mlp_experiments.mlp_utils import MLPArchitecture
from threshold_search import binary_search
from threshold_search.questions.bisection import Bounds, search_sizes
from training.probe import Probe
from training.spec import Architecture
from training.start import start_probe
from transformer_experiments.transformer_utils import TransformerArchitecture

CONFIGURATIONS: list[Architecture] = [
    MLPArchitecture(49, 1),
    MLPArchitecture(447, 1),
    TransformerArchitecture(32, 380, 4, 1),
]
PUBLISHED_SETTINGS = {
    "optim": "adamw_torch_fused",  # the default of today's transformers
    "per_device_eval_batch_size": 8,
    "save_total_limit": None,
    "save_only_model": False,
}
WORKER_ROUNDS = 3
WORKER_COMMAND = ["--model", "mlp", "--params", "30000", "--layers", "1", "2"]


def timed_search(memorizes: Callable[[int], bool]) -> tuple[float, int, Bounds]:
    """Run one search; return (seconds, probes, where it ended)."""
    start, probes = time.perf_counter(), 0
    sizes = search_sizes(10**9)
    size = next(sizes)
    while True:
        probes += 1
        try:
            size = sizes.send(memorizes(size))
        except StopIteration as end:
            return time.perf_counter() - start, probes, end.value


def trainer_memorizes(architecture: Architecture) -> Callable[[int], bool]:
    """Return the verdict of the Trainer on n sequences."""
    from trainer_oracle import train_with_trainer

    def memorizes(n: int) -> bool:
        probe = Probe(architecture, architecture.spec.protocol(), 0, 0, n)
        start = start_probe(probe)
        with tempfile.TemporaryDirectory() as folder:
            result = train_with_trainer(
                start.module,
                *start.tensors(),
                probe.protocol,
                start.orders,
                Path(folder),
                **PUBLISHED_SETTINGS,
            ).result
        return result.memorized

    return memorizes


def engine_memorizes(architecture: Architecture) -> Callable[[int], bool]:
    """Return the verdict of the fast engine on n sequences."""
    protocol = architecture.spec.protocol()
    engine = choose_engine("fast", "cpu", architecture, protocol)

    def memorizes(n: int) -> bool:
        [(outcome, _)] = engine.train([Probe(architecture, protocol, 0, 0, n)])
        return outcome.memorized

    return memorizes


def worker_seconds(workers: int) -> float:
    """Return the time of a whole search command with ``workers`` processes, start included."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--workers", str(workers), "--results-dir", folder]
        start = time.perf_counter()
        subprocess.run(
            [sys.executable, binary_search.__file__, *WORKER_COMMAND, *flags],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return time.perf_counter() - start


def compare_workers() -> None:
    """Time the search command with one worker and with two; print and write the table."""
    rounds = [(worker_seconds(1), worker_seconds(2)) for _ in range(WORKER_ROUNDS)]
    one, two = map(min, zip(*rounds, strict=True))
    command = " ".join(WORKER_COMMAND)
    row = {"command": command, "one_worker_seconds": one, "two_workers_seconds": two}
    report([{**row, "speedup": one / two}], "worker_times")


def compare_engines(only: str | None) -> None:
    """Time whole searches, or ``only`` one; print the rows, write the table if it is whole."""
    rows = []
    for architecture in CONFIGURATIONS:
        if only and only != architecture.name:
            continue
        seconds, probes, bounds = timed_search(engine_memorizes(architecture))
        trainer_seconds, trainer_probes, trainer_bounds = timed_search(
            trainer_memorizes(architecture)
        )
        rows.append(
            {
                "model": architecture.spec.name,
                "configuration": architecture.name,
                "trainer_seconds": trainer_seconds,
                "trainer_probes": trainer_probes,
                "trainer_first_failure": trainer_bounds.first_failure,
                "engine_seconds": seconds,
                "engine_probes": probes,
                "engine_first_failure": bounds.first_failure,
                "speedup": trainer_seconds / seconds,
            }
        )
        print(rows[-1], file=sys.stderr)
    if not only:
        report(rows, "search_times")


def main() -> None:
    """Measure, print and write the tables."""
    parser = Parser(__doc__)
    names = [architecture.name for architecture in CONFIGURATIONS]
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--only", choices=names, help="print one configuration's row, write nothing")
    part.add_argument("--workers-only", action="store_true", help="only one worker against two")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.workers_only:
        compare_workers()
        return
    compare_engines(args.only)
    if not args.only:
        compare_workers()


if __name__ == "__main__":
    run(main)
