"""Find the memorization threshold of every configuration of a parameter budget.

    python threshold_search/binary_search.py --model mlp --params 30000
    python threshold_search/binary_search.py --model transformer --params 32000 --layers 1
    python threshold_search/binary_search.py --paper        (all published rows)

Writes MODEL_probes.csv (one row per trained model, as it finishes), MODEL_results.csv (one row per
search) and runs.jsonl (what trained them) into the results folder. The same command continues where
an earlier one was stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # this checkout's code, whichever one the environment has installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from command_line.parser import begin

    begin()

from command_line.parser import Parser, SomeFailed, positive_int, run
from command_line.streams import OutputLost
from threshold_search.plan import searches
from threshold_search.search_flags import (
    add_search_flags,
    configurations_asked_for,
    failures_text,
    models_asked_for,
    run_as_asked,
)
from training.spec import ModelSpec


def main() -> None:
    """Read the flags, search, print the table."""
    specs = models_asked_for()
    args = _parse(specs)
    wanted = configurations_asked_for(args, specs)
    wanted_searches = searches(wanted, args.repeats, args.seed, args.attempt, args.max_size)
    finished = run_as_asked(args, wanted, wanted_searches)
    if finished.rows:
        from visualizations.report import summary_table

        with contextlib.suppress(OutputLost):  # said at the end, beside what else has failed
            print(summary_table(finished.rows))
    if finished.failures:
        raise SomeFailed(failures_text(finished.failures))


def _parse(specs: Sequence[ModelSpec]) -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument(
        "--max-size",
        type=positive_int,
        metavar="N",
        help="largest number of sequences to try (default: as many as the task has)",
    )
    add_search_flags(parser, specs, repeats=5)
    return parser.parse_args()


if __name__ == "__main__":
    run(main)
