"""Draw thresholds from the results CSVs, our measurements beside the published ones.

    python visualizations/figures.py
    python visualizations/figures.py --results-dir runs/first-search

Writes the published figures, and those of our findings that the folder has the searches for, as PNG
and PDF into DIR/figures/. Any other set of configurations: visualizations/threshold_lines.py.
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

from command_line.files import write_whole
from command_line.parser import Parser, run, user_path
from threshold_search.results_folder import DEFAULT_FOLDER
from training.errors import UserError
from visualizations.drawing import own_style
from visualizations.findings import findings
from visualizations.published_figures import (
    mlp_depth_figure,
    ours_against_published_figure,
    transformer_heads_figure,
)


@own_style()
def save(figure: Figure, name: str, folder: Path | str) -> list[Path]:
    """Write ``name``.png (200 dpi) and ``name``.pdf into ``folder``; return their paths.

    Equal figures give equal bytes: the files hold no dates. Raises :class:`UserError` when the
    folder cannot be written.
    """
    folder = Path(folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from None
    png, pdf = folder / f"{name}.png", folder / f"{name}.pdf"
    undated = {"CreationDate": None}
    write_whole(png, lambda file: figure.savefig(file, format="png", dpi=200))
    write_whole(pdf, lambda file: figure.savefig(file, format="pdf", metadata=undated))
    return [png, pdf]


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
    """Read the flag, write the figures, say where they are."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--results-dir",
        type=user_path,
        metavar="DIR",
        default=DEFAULT_FOLDER,
        help="folder of the results CSVs; the figures go to its figures/",
    )
    for written in save_all(parser.parse_args().results_dir):
        print(written)


if __name__ == "__main__":
    run(main)
