"""What made the rows of a results folder: runs.jsonl, one JSON object per run that trained.

Nothing reads it back; it is for whoever asks later where a number came from. Neither the user's
home folder nor the place of the checkout gets into it, so that it can be published. Imports no
torch: versions come from the installed packages' metadata.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from command_line.files import append_whole
from command_line.version import CHECKOUT, own_version, version_of
from engines.cpu import cpu_name
from training.probe import BITS_VERSION

RECORD_NAME = "runs.jsonl"
GIT_SECONDS = 5.0
# Searches write there: their own output must not make the code look modified.
NOT_CODE = "results"


def describe_run(
    engines: Mapping[str, str],
    device: str,
    workers: int | None,
    native: Mapping[str, object] | None = None,
    command: str | None = None,
    executor: str = "local",
    nodes: Sequence[Mapping[str, object]] = (),
) -> dict[str, object]:
    """Return what is to be known of a run of this process that is about to train.

    ``engines`` has the models as keys and the names of their engines as values, ``native`` is
    the native engine's description of itself (its compiler, say; without absolute paths), whatever
    JSON can hold, and ``nodes`` likewise what the ``executor`` says of its machines. What cannot be
    found out is None.
    """
    torch = sys.modules.get("torch")  # which is not imported for it
    return {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command or command_line(sys.argv),
        **_git_state(),
        "version": own_version(),
        "bits": BITS_VERSION,
        "engines": {m: {"engine": e, "device": device} for m, e in engines.items()},
        "native": dict(native or {}),
        "workers": workers,
        "executor": executor,
        "nodes": list(nodes),
        "cpu": cpu_name(),
        "architecture": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": version_of("numpy"),
        "torch": version_of("torch"),
        "torch_vectors": torch.backends.cpu.get_cpu_capability() if torch else None,
        "gpu": torch.cuda.get_device_name() if torch and device == "cuda" else None,
    }


def append_run(folder: Path, entry: Mapping[str, object]) -> None:
    """Add ``entry`` to the folder's record in one write, so that a kill leaves at most a torn line.

    A torn last line of an earlier run stays as it is, the entry starts on a line of its own. The
    caller holds the folder's lock. Raises :class:`UserError` when the file cannot be written.
    """
    path = folder / RECORD_NAME
    line = json.dumps(entry) + "\n"
    if path.is_file() and not (path.read_bytes() or b"\n").endswith(b"\n"):
        line = "\n" + line
    append_whole(path, line.encode())


def command_line(argv: Sequence[str]) -> str:
    """Return a command for a shell, as if given in the checkout.

    The script is its name. A path among the flags is the one within the checkout, or only its last
    part if it leads elsewhere.
    """
    script, *flags = argv
    return shlex.join([Path(script).name, *map(_portable, flags)])


def _portable(flag: str) -> str:
    name, equals, value = flag.partition("=") if flag.startswith("-") else ("", "", flag)
    path = Path(value)
    if not path.is_absolute() and ".." not in path.parts and len(path.parts) < 2:
        return flag
    path = Path(os.path.abspath(path))
    for whole in (path, path.resolve()):
        if whole.is_relative_to(CHECKOUT):
            return name + equals + whole.relative_to(CHECKOUT).as_posix()
    return name + equals + path.name


def _git_state() -> dict[str, object]:
    """Return the commit of the code and whether tracked files differ from it; None: not known."""
    state: dict[str, object] = {"commit": None, "modified": None}
    # Naming the repository keeps git from finding another one: a checkout may be installed inside
    # the working tree of another project, or be run from a hook of one.
    repository = CHECKOUT / ".git"
    if not repository.exists():
        return state
    command = ["git", f"--git-dir={repository}", f"--work-tree={CHECKOUT}", "--no-optional-locks"]
    command += ["status", "--porcelain=v2", "--branch", "--untracked-files=no"]
    command += ["--", ".", f":(exclude){NOT_CODE}"]
    try:
        answer = subprocess.run(
            command,
            cwd=CHECKOUT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=GIT_SECONDS,
            check=True,
        ).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return state
    head = "# branch.oid "
    commits = [line.removeprefix(head) for line in answer if line.startswith(head)]
    if commits and commits[0] != "(initial)":
        state["commit"] = commits[0]
        state["modified"] = any(not line.startswith("#") for line in answer)
    return state
