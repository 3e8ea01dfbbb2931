"""The version of the code that runs, which stands in pyproject.toml alone."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

PROJECT = "memorization-thresholds"
CHECKOUT = Path(__file__).resolve().parent.parent


def own_version() -> str | None:
    """Return the version of this code; what is installed may be another checkout."""
    try:
        project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
        return str(project["project"]["version"])
    except FileNotFoundError:  # an installed copy
        return version_of(PROJECT)


def version_of(package: str) -> str | None:
    """Return the version of an installed package, None if it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
