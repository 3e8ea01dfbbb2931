"""The version of the code that runs, which stands in pyproject.toml alone."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

PROJECT = "memorization-thresholds"
CHECKOUT = Path(__file__).resolve().parent.parent


def own_version() -> str | None:
    """Return the version of this code; what is installed may be another checkout."""
    try:
        project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
        return str(project["project"]["version"])
    except (OSError, ValueError, KeyError):
        return version_of(PROJECT)


def version_of(package: str) -> str | None:
    """Return the version of an installed package, None if it is not there."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


class VersionAction(argparse.Action):
    """The flag --version: prints project and version, looked up only then, and ends."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        """Print and exit."""
        print(f"{PROJECT} {own_version() or 'of an unknown version'}")
        parser.exit()
