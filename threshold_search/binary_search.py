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
from threshold_search.plan import label_notes, searches
from threshold_search.run import run_searches
from threshold_search.search_flags import (
    add_search_flags,
    configurations_asked_for,
    models_asked_for,
)
from threshold_search.searches import Search
from training.spec import ModelSpec


def main() -> None:
    """Read the flags, search, print the table."""
    specs = models_asked_for()
    args = _parse(specs)
    wanted = configurations_asked_for(args, specs)
    try:
        finished = run_searches(
            searches(wanted, args.repeats, args.seed, args.attempt, args.max_size),
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
    if finished.rows:
        from visualizations.report import summary_table

        with contextlib.suppress(OutputLost):  # said at the end, beside what else has failed
            print(summary_table(finished.rows))
    if not finished.trained:
        print(
            f"note: the logs in {args.results_dir} had every probe; nothing was trained. To "
            "measure anew, give another folder (--results-dir) or another --seed",
            file=sys.stderr,
        )
    if finished.failures:
        raise SomeFailed(_failures(finished.failures))


def _failures(failures: Sequence[tuple[Search, str]]) -> str:
    """Return one line that names what could not be finished, and why."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for search, reason in failures:
        name = f"{search.architecture.spec.name} {search.architecture.name}"
        reasons.setdefault((name, reason), []).append(str(search.repeat))
    parts = [f"{n} (repeats {', '.join(r)}): {why}" for (n, why), r in reasons.items()]
    return f"not finished: {'; '.join(parts)}"


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
