"""Time of one optimiser step by the engine's two libraries, of eight lanes and of sixteen.

    python benchmarks/engine_widths.py               # about two minutes; needs AVX-512
    python benchmarks/engine_widths.py --rounds 9

Every round times both libraries in turn, each in a process of its own, on the configurations of
step_times.py, one model each. A ratio is of one round; the table has the median. Prints the table
and writes results/benchmarks/engine_widths.csv.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections import defaultdict

import torch
from machine import has_wide_registers, report
from step_times import CONFIGURATIONS, native, probes_of

from command_line.parser import Parser, positive_int, run
from engines.native.build import LIBRARY, SOURCES, WIDE_LIBRARY
from engines.native.load import LIBRARY_VARIABLE
from training.errors import UserError

EPOCHS = 25  # of each configuration; the fastest counts


def microseconds() -> dict[str, float]:
    """Return the time of a step of every configuration by the library of this process."""
    torch.set_num_threads(1)
    found = {}
    for architecture, _ in CONFIGURATIONS:
        epoch = native(probes_of(architecture, 1, 500))
        name = f"{architecture.spec.name} {architecture.name}"
        found[name] = 1e6 * min(epoch() for _ in range(EPOCHS))
    return found


def of_library(name: str) -> dict[str, float]:
    """Return what a process with one of the libraries measures."""
    ended = subprocess.run(
        [sys.executable, __file__, "--here"],
        env={**os.environ, LIBRARY_VARIABLE: str(SOURCES / name)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(ended.stdout)


def main() -> None:
    """Measure, print and write the table."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--rounds", type=positive_int, metavar="N", default=5, help="times both are measured"
    )
    parser.add_argument("--here", action="store_true", help="print this process's times as JSON")
    args = parser.parse_args()
    if args.here:
        print(json.dumps(microseconds()))
        return
    if not has_wide_registers():
        raise UserError("this processor, or this installation, has one library alone")
    times: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for _ in range(args.rounds):
        for library in (LIBRARY, WIDE_LIBRARY):
            for configuration, step in of_library(library).items():
                times[configuration][library].append(step)
    rows = []
    for configuration, by_library in times.items():
        eight, sixteen = by_library[LIBRARY], by_library[WIDE_LIBRARY]
        ratios = [new / old for old, new in zip(eight, sixteen, strict=True)]
        rows.append(
            {
                "configuration": configuration,
                "rounds": args.rounds,
                "eight_lanes_us": min(eight),
                "sixteen_lanes_us": min(sixteen),
                "ratio": statistics.median(ratios),
            }
        )
    report(rows, "engine_widths")


if __name__ == "__main__":
    run(main)
