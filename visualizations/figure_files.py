"""Figures as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from command_line.files import write_whole
from training.errors import UserError
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


def save(figure: Figure, name: str, folder: Path | str) -> list[Path]:
    """Write ``name``.png and ``name``.pdf into ``folder``; return their paths.

    Raises :class:`UserError` when the folder cannot be written.
    """
    folder = Path(folder).expanduser()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}") from None
    paths = [folder / f"{name}{kind}" for kind in _OPTIONS]
    for path in paths:
        write_figure(figure, path)
    return paths
