"""How often a network memorizes exactly N sequences: a share, with its Wilson interval.

    python threshold_search/success_rate.py --model mlp --params 10000 --num-sequences 416
    python threshold_search/success_rate.py --model mlp --hidden-size 41 --layers 2 \\
        --num-sequences 416 448 --repeats 500

Trains every configuration that the flags name on every N, with other data and another start in
each repeat. Rows go to MODEL_probes.csv of the results folder, where searches find them; the same
command continues where an earlier one was stopped.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

if __name__ == "__main__":  # this checkout's code, whichever one the environment has installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from command_line.parser import begin

    begin()

from command_line.parser import Parser, SomeFailed, positive_int, run
from command_line.streams import OutputLost
from threshold_search.questions.trial import Trial
from threshold_search.search_flags import asked_for, run_as_asked


def main() -> None:
    """Read the flags, train, print the table."""
    args, wanted = asked_for(__doc__, 200, _add_flags)
    trials = [
        Trial(*configuration, args.seed, args.attempt, repeat=repeat, n=n)
        for configuration in wanted
        for n in dict.fromkeys(args.num_sequences)
        for repeat in range(args.repeats)
    ]
    finished = run_as_asked(args, trials)
    if taken := [pair for state in finished.states for pair in state.taken]:
        from visualizations.success import rate_table

        with contextlib.suppress(OutputLost):  # said at the end, beside what else has failed
            print(rate_table(taken))
    if finished.failures:
        raise SomeFailed(finished.failures)


def _add_flags(parser: Parser) -> None:
    parser.add_argument(
        "--num-sequences",
        type=positive_int,
        metavar="N",
        nargs="+",
        required=True,
        help="examples to memorize",
    )


if __name__ == "__main__":
    run(main)
