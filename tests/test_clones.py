"""Two checkouts and one environment: everything is its own checkout's, whichever is installed."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from scripts import BINARY_SEARCH, ROOT, SCRIPTS, TRAIN_MLP

PACKAGES = [p.name for p in ROOT.iterdir() if (p / "__init__.py").exists()]
SEARCH = "--model mlp --params 1000 --layers 0 --max-size 2 --repeats 1 --workers 1"
# Every process says where it finds the project's modules.
WITNESS = f"""
import importlib.machinery, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {PACKAGES}:
            spec = importlib.machinery.PathFinder.find_spec(name, path)
            process = "worker" if "spawn_main" in str(sys.orig_argv) else ""
            print("FROM", spec.origin, process, file=sys.stderr)
sys.meta_path.insert(0, Finder())
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A second checkout, of the tracked and the new files, without a compiled engine."""
    folder = tmp_path_factory.mktemp("second") / "clone"
    git = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(git, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("this is no git checkout")
    for name in filter(None, listed.stdout.split("\0")):
        if not name.startswith(("results/", "tests/", "docs/")) and (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder.parent / "sitecustomize.py").write_text(WITNESS)
    return folder


def run_in(clone, *words, cwd="/", **options):
    """Run Python where this checkout is what is installed; return it and where its code is from."""
    environment = {"PYTHONPATH": f"{clone.parent}{os.pathsep}{ROOT}", **options}
    ended = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stderr
    return ended, [line[5:] for line in ended.stderr.splitlines() if line.startswith("FROM ")]


def assert_own(places, clone):
    assert places and all(place.startswith(f"{clone}/") for place in places), places


def test_a_search_of_a_second_clone_is_its_own(clone):
    """Its code, its workers' code, its results folder and its version."""
    project = clone / "pyproject.toml"
    project.write_text(project.read_text().replace('version = "', 'version = "9.', 1))
    script = clone / BINARY_SEARCH.relative_to(ROOT)
    _, places = run_in(clone, script, *SEARCH.split(), MEMORIZATION_NO_ENGINE="1")
    assert_own(places, clone)
    assert any(place.endswith("worker") for place in places)
    assert (clone / "results" / "mlp_results.csv").exists()
    (entry,) = map(json.loads, (clone / "results" / "runs.jsonl").read_text().splitlines())
    assert entry["version"].startswith("9.")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_takes_everything_from_its_own_checkout(script, clone):
    assert_own(run_in(clone, clone / script.relative_to(ROOT), "--help")[1], clone)


def test_a_moved_clone(clone, tmp_path):
    """What is installed points at where the clone was."""
    moved = shutil.copytree(clone, tmp_path / "moved here")
    script = moved / TRAIN_MLP.relative_to(ROOT)
    run_in(moved, script, "--params", 1000, "--layers", 0, "--dry-run", PYTHONPATH=clone / "gone")


def test_a_benchmark_and_the_tests_take_their_own_checkout(clone):
    assert_own(run_in(clone, "-c", "import machine", cwd=clone / "benchmarks")[1], clone)
    (clone / "tests").mkdir()
    (clone / "tests" / "test_where.py").write_text("import training.errors\ndef test(): pass\n")
    command = ("-m", "pytest", "-q", "-s", "-p", "no:cacheprovider")
    assert_own(run_in(clone, *command, cwd=clone, PYTHONSAFEPATH="1")[1], clone)


def test_the_notebook_takes_its_own_checkout(clone):
    """Its first cell with code, from the notebook's folder and from the checkout's."""
    notebook = json.loads((ROOT / "visualizations" / "plots.ipynb").read_text())
    (cell, *_) = (cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    code, its_own, _ = "".join(cell["source"][1:]).partition("from visualizations")
    assert cell["source"][0].startswith("%") and its_own
    for folder in (clone, clone / "visualizations"):
        assert_own(run_in(clone, "-c", f"{code}\nimport training.errors", cwd=folder)[1], clone)
