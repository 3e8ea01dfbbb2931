"""The control groups that bound this process on Linux, of both versions. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")


def control_groups(controller: str, root: Path = ROOT, own: Path = OWN) -> Iterator[Path]:
    """Yield the folders of this process's group and of those above it, as far as they are there.

    A line of ``own`` is number:controllers:path, without controllers in version 2. In a container
    the path may be the host's, and only the topmost folder exists.
    """
    lines = own.read_text(encoding="utf-8").splitlines() if own.exists() else []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            top = root / controller if controllers else root
            group = top / path.lstrip("/")
            yield from (f for f in (group, *group.parents) if f.is_relative_to(top) and f.is_dir())


def numbers(path: Path) -> list[int]:
    """Return the whole numbers in a file of a group; none for "max", or where it is not."""
    try:
        return [int(word) for word in path.read_text(encoding="utf-8").split()]
    except (OSError, ValueError):
        return []
