"""Draw thresholds from the results CSVs of any models.

    python visualizations/figures.py
    python visualizations/figures.py --results-dir runs/first-search
    python visualizations/figures.py history history.csv  # of train_*.py --history history.csv

Writes PNG and PDF into DIR/figures/: thresholds_MODEL_TASK of every model and task, thresholds
against what was varied; and the figures of study/figures.py that the folder has searches for, ours
beside the published ones. Where every published row is measured, these stand for the study's
models. The figure of a history is written beside it. One figure of what a search has found:
binary_search.py --figure FILE. Any other set of configurations: visualizations/threshold_lines.py.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

if __name__ == "__main__":  # this checkout's code, whichever one the environment has installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from command_line.parser import begin

    begin()
    os.environ["MPLBACKEND"] = "agg"  # files are all that is drawn; another may not even exist

from command_line.parser import Parser, run, user_path
from study.figures import save_all
from threshold_search.log.results_folder import DEFAULT_FOLDER
from visualizations.figure_files import save
from visualizations.history import history_figure, read_history

HISTORY_HELP = """    python visualizations/figures.py history history.csv

Draws loss, accuracy and learning rate of every evaluation into history.png and history.pdf, beside
the file.
"""


def main() -> None:
    """Read the flags, write the figures, say where they are."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--results-dir",
        type=user_path,
        metavar="DIR",
        help="folder of the results CSVs; the figures go to its figures/ "
        f"(default: {DEFAULT_FOLDER})",
    )
    commands = parser.add_subparsers(title="instead of results", metavar="COMMAND", dest="command")
    history = commands.add_parser(
        "history",
        help="the training of one model, from the CSV of train_*.py --history",
        description=HISTORY_HELP,
    )
    history.add_argument("file", type=user_path, metavar="FILE.csv", help="what --history wrote")
    args = parser.parse_args()
    if args.command is None:
        paths = save_all(args.results_dir or DEFAULT_FOLDER)
    elif args.results_dir is not None:
        parser.error("--results-dir is not for a history, whose figure is written beside it")
    else:
        figure = history_figure(read_history(args.file), args.file.name)
        paths = save(figure, args.file.stem, args.file.parent)
    for written in paths:
        print(written)


if __name__ == "__main__":
    run(main)
