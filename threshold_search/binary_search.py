"""Find the memorization threshold of every configuration of a parameter budget.

    python threshold_search/binary_search.py --model mlp --params 30000
    python threshold_search/binary_search.py --model transformer --params 32000 --layers 1
    python threshold_search/binary_search.py --model mlp --params 10000 --figure thresholds.png
    python threshold_search/binary_search.py --paper  # all published rows

Writes MODEL_probes.csv (one row per trained model, as it finishes), MODEL_results.csv (one row per
search) and runs.jsonl (what trained them) into the results folder. The same command continues where
an earlier one was stopped.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

if __name__ == "__main__":  # this checkout's code, whichever one the environment has installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from command_line.parser import begin

    begin()
    os.environ["MPLBACKEND"] = "agg"  # of --figure: another may not even exist

from command_line.files import require_writable
from command_line.parser import Parser, SomeFailed, figure_path, positive_int, run
from command_line.streams import OutputLost
from threshold_search.plan import searches
from threshold_search.search_flags import asked_for, run_as_asked
from training.errors import UserError


def main() -> None:
    """Read the flags, search, print the table."""
    args, wanted = asked_for(__doc__, 5, _add_flags)
    if args.figure:
        require_writable(args.figure)
    bisections = searches(wanted, args.repeats, args.seed, args.attempt, args.max_size)
    finished = run_as_asked(args, bisections)
    if finished.rows:
        from study.comparison import with_published
        from visualizations.report import searches_frame, summary_table

        found = with_published(searches_frame(finished.rows))
        with contextlib.suppress(OutputLost):  # said at the end, beside what else has failed
            print(summary_table(found))
    not_drawn = ""
    if finished.rows and args.figure:
        from visualizations.figure_files import write_figure
        from visualizations.search_figure import search_figure

        try:
            write_figure(search_figure(found), args.figure)
        except UserError as error:
            not_drawn = str(error)
    if finished.failures:
        raise SomeFailed("; ".join(filter(None, [finished.failures, not_drawn])))
    if not_drawn:
        raise UserError(not_drawn)


def _add_flags(parser: Parser) -> None:
    parser.add_argument(
        "--max-size",
        type=positive_int,
        metavar="N",
        help="largest number of sequences to try (default: as many as the task has)",
    )
    parser.add_argument(
        "--figure",
        type=figure_path,
        metavar="FILE",
        help="draw the thresholds into FILE.png or FILE.pdf at the end",
    )


if __name__ == "__main__":
    run(main)
