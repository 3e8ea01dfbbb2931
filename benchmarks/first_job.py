"""A first short job that has to compile the engine, against the same job without a compiler.

    python benchmarks/first_job.py                    (about ten minutes)

Times whole commands: with an empty cache (the compiler runs while torch is imported), without a
compiler, and with everything compiled, as after installation. One of each in turn; medians. Prints
the table and writes results/benchmarks/first_job.csv.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time

from machine import report
from tqdm import tqdm

from mlp_experiments import train_mlp
from training.cli import Parser, positive_int, run
from training.native.build import NO_COMPILER_VARIABLE
from transformer_experiments import train_transformer

JOBS = [
    (train_mlp, ["--params", "10000", "--num-sequences", "16"]),
    (train_mlp, ["--params", "10000"]),
    (train_transformer, ["--params", "32000", "--heads", "4"]),
    (train_transformer, ["--params", "32000", "--heads", "1"]),
    (train_transformer, ["--params", "64000", "--heads", "32"]),
]


def seconds(script, flags: list[str], **environment: str) -> float:
    """Return the time of one whole command."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, script.__file__, *flags],
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
    )
    return time.perf_counter() - start


def main() -> None:
    """Measure, print and write the table."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--rounds", type=positive_int, metavar="N", default=15, help="runs of every command"
    )
    args = parser.parse_args()
    rows = []
    with tqdm(total=len(JOBS) * args.rounds, unit="round", disable=None) as bar:
        for script, flags in JOBS:
            kinds = ("compiling", "without_compiler", "compiled")
            times: dict[str, list[float]] = {kind: [] for kind in kinds}
            for _ in range(args.rounds):
                with tempfile.TemporaryDirectory() as cache:
                    for name in ("compiling", "compiled"):  # the second finds the first's library
                        times[name].append(seconds(script, flags, XDG_CACHE_HOME=cache))
                without = seconds(script, flags, **{NO_COMPILER_VARIABLE: "1"})
                times["without_compiler"].append(without)
                bar.update()
            name = script.__name__.rsplit(".", 1)[1]
            medians = {f"{kind}_seconds": statistics.median(all_) for kind, all_ in times.items()}
            rows.append({"command": " ".join([f"{name}.py", *flags]), **medians})
    report(rows, "first_job")


if __name__ == "__main__":
    run(main)
