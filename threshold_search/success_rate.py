"""How often a network memorizes exactly N sequences: a share, with its Wilson interval.

    python threshold_search/success_rate.py --model mlp --params 10000 --num-sequences 416
    python threshold_search/success_rate.py --model mlp --hidden-size 41 --layers 2 \\
        --num-sequences 416 448 --repeats 500

Trains every configuration that the flags name on every N, with other data and another start in
each repeat. Rows go to MODEL_probes.csv of the results folder, where searches find them; the same
command continues where an earlier one was stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # this checkout's code, whichever one the environment has installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from command_line.parser import begin

    begin()

from command_line.parser import Parser, positive_int, run
from dataset.synthetic_generator import max_mappings
from threshold_search.plan import Configuration, label_notes
from threshold_search.run import run_probes
from threshold_search.search_flags import (
    add_search_flags,
    configurations_asked_for,
    models_asked_for,
)
from training.errors import OutOfMemory, UserError
from training.probe_types import Probe
from training.spec import ModelSpec


def main() -> None:
    """Read the flags, train, print the table."""
    specs = models_asked_for()
    args = _parse(specs)
    wanted = configurations_asked_for(args, specs)
    probes = _probes(args, wanted)
    try:
        finished = run_probes(
            probes,
            args.results_dir,
            requested_engine=args.engine,
            device=args.device,
            workers=args.workers,
            notes=label_notes(wanted),
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; every finished probe is in {args.results_dir}, "
            "the same command continues from there"
        ) from None
    if finished:
        from visualizations.success import rate_table

        print(rate_table(finished))
    if len(finished) < len(set(probes)):
        raise OutOfMemory(f"not enough memory for {len(set(probes)) - len(finished)} probes")


def _probes(args: argparse.Namespace, wanted: Sequence[Configuration]) -> list[Probe]:
    """Return every repeat of every configuration and size; raise UserError for a size too large."""
    for architecture, _, _ in wanted:
        limit = max_mappings(architecture.vocab_size, architecture.seq_len)
        if max(args.num_sequences) > limit:
            raise UserError(f"--num-sequences must be at most {limit}, all that the task has")
    return [
        Probe(architecture, protocol, args.seed, repeat, n, args.attempt)
        for architecture, protocol, _ in wanted
        for n in args.num_sequences
        for repeat in range(args.repeats)
    ]


def _parse(specs: Sequence[ModelSpec]) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        "--num-sequences",
        type=positive_int,
        metavar="N",
        nargs="+",
        required=True,
        help="mappings to memorize",
    )
    add_search_flags(parser, specs, repeats=200)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
