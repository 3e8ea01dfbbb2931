"""Helpers that run the project's scripts as a user would."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TRAIN_MLP = ROOT / "mlp_experiments" / "train_mlp.py"
TRAIN_TRANSFORMER = ROOT / "transformer_experiments" / "train_transformer.py"
BINARY_SEARCH = ROOT / "threshold_search" / "binary_search.py"
FIGURES = ROOT / "visualizations" / "figures.py"
GENERATOR = ROOT / "dataset" / "synthetic_generator.py"
SCRIPTS = sorted(
    path
    for path in ROOT.glob("*/*.py")
    if path.parent.name not in ("tests", "benchmarks") and "\n    run(main)" in path.read_text()
)


def command(script, *flags):
    """Return the command line of a script."""
    return [sys.executable, str(script), *map(str, flags)]


def run_script(script, *flags, cwd, timeout=300, **environment):
    """Run a script in a process of its own, with variables added to its environment."""
    return subprocess.run(
        command(script, *flags),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, **environment},
    )


def children(process):
    """Return the ids of the worker processes of a running search."""
    found = subprocess.run(
        ["pgrep", "-P", str(process.pid), "-f", "spawn_main"], capture_output=True, text=True
    )
    return [int(number) for number in found.stdout.split()]


def run_here(script, flags, monkeypatch, capsys):
    """Run a script in this process (importing torch once); return (status, stdout, stderr)."""
    monkeypatch.setattr(sys, "argv", [str(script), *flags])
    try:
        runpy.run_path(str(script), run_name="__main__")
        status = 0
    except SystemExit as end:
        status = end.code
    return status, *capsys.readouterr()


def results_without_seconds(path):
    """Return the lines of a results CSV without their last column, the seconds."""
    return [line.rsplit(",", 1)[0] for line in Path(path).read_text().splitlines()]


def checkout(target, *without):
    """Copy this checkout, the built engine included, but not what runs and tools left in it.

    Folders and files named in ``without`` stay behind. Returns the copy.
    """
    left = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "runs", *without)
    return shutil.copytree(ROOT, target, ignore=left)
