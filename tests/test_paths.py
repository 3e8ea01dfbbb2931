"""Paths of flags, a user's settings of Matplotlib, variables of the environment."""

import os
import re
import subprocess
import sys

import pytest
from made_results import write_partial
from scripts import (
    BINARY_SEARCH,
    FIGURES,
    GENERATOR,
    ROOT,
    TRAIN_MLP,
    TRAIN_TRANSFORMER,
    run_here,
    run_script,
)

SMALL = "--hidden-size 2 --layers 1"
# Every flag of every script that takes a path, with what the script needs besides.
PATH_FLAGS = [
    (TRAIN_MLP, f"{SMALL} --num-sequences 2", "--save"),
    (TRAIN_MLP, f"{SMALL} --num-sequences 2", "--history"),
    (TRAIN_TRANSFORMER, "--params 2000 --heads 1 --num-sequences 2 --max-epochs 1", "--save"),
    (GENERATOR, "--num-sequences 2", "--save"),
    (BINARY_SEARCH, f"--model mlp {SMALL} --repeats 1 --max-size 2", "--results-dir"),
    (
        BINARY_SEARCH,
        f"--model mlp {SMALL} --repeats 1 --max-size 2 --results-dir ../runs",
        "--figure",
    ),
    (FIGURES, "", "--results-dir"),
]
IDS = [f"{script.stem} {flag}" for script, _, flag in PATH_FLAGS]


@pytest.mark.parametrize(("script", "flags", "flag"), PATH_FLAGS, ids=IDS)
def test_a_home_folder_after_the_equals_sign(script, flags, flag, tmp_path, monkeypatch, capsys):
    home, here = tmp_path / "home", tmp_path / "here"
    home.mkdir()
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    name = "x.png" if flag == "--figure" else "x.npz"
    status, _, stderr = run_here(script, [*flags.split(), f"{flag}=~/{name}"], monkeypatch, capsys)
    if script == FIGURES:  # an input
        assert stderr.endswith(f"no results folder {home}/x.npz\n")
        return
    assert status == 0, stderr
    assert (home / name).exists()
    assert not list(here.iterdir())


@pytest.mark.parametrize(("script", "flags", "flag"), PATH_FLAGS, ids=IDS)
@pytest.mark.parametrize(
    ("path", "clue"), [("~no-such-user-here/x", "no home folder"), ("", "an empty one")]
)
def test_a_path_that_cannot_be_one(script, flags, flag, path, clue, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, stdout, stderr = run_here(
        script, [*flags.split(), f"{flag}={path}"], monkeypatch, capsys
    )
    assert (status, stdout) == (2, "")
    assert stderr.count("\n") == 1
    assert flag in stderr and clue in stderr
    assert not list(tmp_path.iterdir())


def test_those_are_all_flags_that_take_a_path(tmp_path):
    """No script parses a path in another way, and each is tested above."""
    known = {(script, flag) for script, _, flag in PATH_FLAGS}
    for script in {script for script, _, _ in PATH_FLAGS}:
        helped = run_script(script, "--help", cwd=tmp_path, COLUMNS="300").stdout
        found = re.findall(r"^  (--[a-z-]+) (?:FILE|DIR)", helped, re.MULTILINE)
        assert found
        for flag in found:
            assert (script, flag) in known or (TRAIN_MLP, flag) in known
    for path in sources():
        assert not re.search(r"type=(pathlib\.)?Path\b", path.read_text(encoding="utf-8")), path


# What a user may have set, in a form that changes almost everything that is drawn.
MATPLOTLIBRC = """
text.usetex: True
font.family: serif
font.size: 20
backend: TkAgg
savefig.bbox: tight
savefig.transparent: True
savefig.dpi: 30
figure.facecolor: black
axes.grid: True
axes.prop_cycle: cycler("color", ["r"])
axes.formatter.use_mathtext: True
axes.unicode_minus: False
xtick.direction: in
xtick.minor.visible: True
legend.frameon: True
lines.dash_capstyle: round
pdf.compression: 0
text.hinting: none
"""
DRAW = """
import sys
from visualizations.figure_files import save
from study.figures import mlp_depth_figure
figure = mlp_depth_figure(sys.argv[1])
save(figure, "figure", sys.argv[2])
"""


def test_figures_have_their_own_style(tmp_path):
    write_partial(tmp_path)
    drawn = []
    for name, text in (("none", ""), ("user", MATPLOTLIBRC)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "matplotlibrc").write_text(text)
        ended = subprocess.run(
            [sys.executable, "-c", DRAW, str(tmp_path), str(folder)],
            capture_output=True,
            text=True,
            env={**os.environ, "MATPLOTLIBRC": str(folder / "matplotlibrc")},
        )
        assert ended.returncode == 0, ended.stderr
        drawn.append({path.name: path.read_bytes() for path in folder.glob("*.p*")})
    assert len(drawn[0]) == 2
    assert drawn[0] == drawn[1]


def test_the_script_needs_no_backend_of_the_users(tmp_path):
    ended = run_script(
        FIGURES, "--results-dir", tmp_path / "none", cwd=tmp_path, MPLBACKEND="no-such-backend"
    )
    assert ended.returncode == 2
    assert ended.stderr.endswith(f"no results folder {tmp_path}/none\n")
    assert ended.stderr.count("\n") == 1


def sources():
    folders = ("tests", "benchmarks", "docs", "results", "build", "runs")
    paths = [path for path in ROOT.rglob("*.py") if path.relative_to(ROOT).parts[0][0] != "."]
    return [path for path in paths if path.relative_to(ROOT).parts[0] not in folders]


def variables_read():
    """Return the names of the environment variables that the sources ask for."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources())
    asked = re.findall(r'environ\.get\(("?\w+"?)', text)
    constants = dict(re.findall(r'^([A-Z_]+) = ("[A-Z_]+")', text, re.MULTILINE))
    return {constants.get(name, name).strip('"') for name in asked}


def test_a_document_names_every_variable_that_is_read():
    text = (ROOT / "docs" / "engine.md").read_text(encoding="utf-8")
    part = text.partition("## Environment variables")[2].partition("\n## ")[0]
    named = set(re.findall(r"^- `([A-Z_]+)", part, re.MULTILINE))
    assert named == variables_read()
    assert {"CXX", "MEMORIZATION_NO_ENGINE", "SLURM_CPUS_PER_TASK"} <= named
