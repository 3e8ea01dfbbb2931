"""The recipe for a model in CONTRIBUTING.md, followed to the letter."""

import csv
import os
import subprocess
import sys

import pytest
from documents import fenced_blocks, shell_commands
from scripts import ROOT, run_script

from engines.engine import ReferenceEngine, StackedEngine
from threshold_search.models import find_spec
from training.probe import Probe

CONTRIBUTING = ROOT / "CONTRIBUTING.md"


def write_model(folder):
    for block in fenced_blocks(CONTRIBUTING, "python"):
        name, _, code = block.partition("\n")
        path = folder / name.removeprefix("# ")
        path.parent.mkdir(exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(code)


def test_the_recipe_keeps_the_rules(tmp_path):
    write_model(tmp_path)
    for *tool, config in (
        # Outside the checkout, ruff has to be told what is the project's own.
        ("ruff", "check", "--config", f"src = ['{ROOT}', '.']", "--config"),
        ("ruff", "format", "--check", "--config"),
        ("mypy", "narrow_experiments", "--config-file"),
    ):
        ended = subprocess.run(
            [sys.executable, "-m", *tool, config, str(ROOT / "pyproject.toml")],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={**os.environ, "MYPYPATH": str(ROOT)},
        )
        assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_model_of_the_recipe_can_be_searched(tmp_path):
    write_model(tmp_path)
    (command,) = (words for words in shell_commands(CONTRIBUTING) if "--model" in words)
    assert command[0] == "python"
    ended = run_script(ROOT / command[1], *command[2:], cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    folder = tmp_path / command[command.index("--results-dir") + 1]
    with (folder / "narrow_results.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row["protocol"] == "paper engine=reference max_size=8"
    assert (int(row["num_parameters"]), int(row["width"])) == (904, 4)
    assert 0 <= int(row["threshold"]) <= 8


def test_the_model_of_the_recipe_can_be_stacked(tmp_path, monkeypatch):
    """As it trains on CUDA, but on a CPU."""
    write_model(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    spec = find_spec("narrow_experiments.narrow_utils:SPEC")
    architecture = spec.solve(None, 10, 10, width=4)
    probes = [Probe(architecture, spec.protocol(max_epochs=5), 0, r, 8) for r in range(2)]
    stacked, reference = (own.train(probes) for own in (StackedEngine(), ReferenceEngine()))
    for (outcome, _), (expected, _) in zip(stacked, reference, strict=True):
        assert outcome.loss == pytest.approx(expected.loss, rel=1e-4)
