"""Draw thresholds from the results CSVs, our measurements beside the published ones.

    python visualizations/figures.py
    python visualizations/figures.py --results-dir runs/first-search
    python visualizations/figures.py history history.csv  # of train_*.py --history history.csv

Writes the published figures, and those of our findings that the folder has the searches for, as PNG
and PDF into DIR/figures/; for a history the two beside it. One figure of what a search has found:
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

from matplotlib.figure import Figure

from command_line.parser import Parser, run, user_path
from study.findings import findings
from study.published_figures import (
    mlp_depth_figure,
    ours_against_published_figure,
    transformer_heads_figure,
)
from threshold_search.log.results_folder import DEFAULT_FOLDER
from training.errors import UserError
from visualizations.figure_files import write_figure
from visualizations.history import history_figure, read_history

HISTORY_HELP = """    python visualizations/figures.py history history.csv

Draws loss, accuracy and learning rate of every evaluation into history.png and history.pdf, beside
the file.
"""


def save(figure: Figure, name: str, folder: Path | str) -> list[Path]:
    """Write ``name``.png and ``name``.pdf into ``folder``; return their paths.

    Raises :class:`UserError` when the folder cannot be written.
    """
    folder = Path(folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from None
    paths = [folder / f"{name}.png", folder / f"{name}.pdf"]
    for path in paths:
        write_figure(figure, path)
    return paths


def save_all(results_dir: Path | str = DEFAULT_FOLDER) -> list[Path]:
    """Draw every figure that ``results_dir`` allows into its figures/; return the paths."""
    figures = {
        "figure3_mlp_depth": mlp_depth_figure(results_dir),
        "figure4_transformer_heads": transformer_heads_figure(results_dir),
        "ours_against_published": ours_against_published_figure(results_dir),
        **findings(results_dir),
    }
    folder = Path(results_dir) / "figures"
    return [path for name, figure in figures.items() for path in save(figure, name, folder)]


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
