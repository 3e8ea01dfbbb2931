"""One figure, one file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from command_line.files import write_whole
from visualizations.drawing import own_style

# What savefig is told of each kind. Equal figures give equal bytes: the files hold no dates.
_OPTIONS: dict[str, dict[str, Any]] = {
    ".png": {"dpi": 200},
    ".pdf": {"metadata": {"CreationDate": None}},
}


@own_style()
def write_figure(figure: Figure, path: Path) -> None:
    """Write ``path``, whose name ends in .png (200 dpi) or .pdf; raises :class:`UserError`."""
    kind = path.suffix.lower()
    options = _OPTIONS[kind]
    write_whole(path, lambda file: figure.savefig(file, format=kind[1:], **options))
