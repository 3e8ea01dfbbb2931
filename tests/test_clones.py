"""Two checkouts and one environment: a script is its own checkout's, whichever is installed."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from scripts import BINARY_SEARCH, ROOT, TRAIN_MLP, TRAIN_TRANSFORMER, command

SCRIPTS = [
    BINARY_SEARCH,
    TRAIN_MLP,
    TRAIN_TRANSFORMER,
    ROOT / "dataset" / "synthetic_generator.py",
    ROOT / "visualizations" / "figures.py",
    ROOT / "visualizations" / "pages.py",
    ROOT / "threshold_search" / "success_rate.py",
    ROOT / "threshold_search" / "merge_logs.py",
]
PACKAGES = "training dataset command_line threshold_search engines mlp_experiments visualizations"
QUICK = "--model mlp --params 1000 --layers 0 --max-size 2 --repeats 1 --workers 1"


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A second checkout, of the tracked and the new files, without a compiled engine."""
    folder = tmp_path_factory.mktemp("second") / "clone"
    git = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(git, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("this is no git checkout")
    for name in listed.stdout.split("\0"):
        if name and not name.startswith(("results/", "tests/", "docs/")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / "results").mkdir()
    return folder


def run_in(folder, script, *flags, path=ROOT, **options):
    """Run a script of ``folder`` in an environment in which ``path`` is what is installed."""
    environment = {**os.environ, "PYTHONPATH": str(path), **options}
    return subprocess.run(
        command(folder / script.relative_to(ROOT), *flags),
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
    )


def contents(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_a_search_of_a_second_clone_is_its_own(clone):
    """Its code, its workers' code, its results folder and its version."""
    marked = clone / "training" / "bits.py"
    original = marked.read_text()
    marked.write_text(original + "\nBITS_VERSION = 987\n")
    project = clone / "pyproject.toml"
    project.write_text(project.read_text().replace('version = "', 'version = "9.', 1))
    # The workers say where their code is from.
    workers = clone / "threshold_search" / "executor.py"
    workers.write_text(
        workers.read_text().replace(
            "    import torch\n",
            "    import sys, torch, training\n"
            "    print('worker', training.__path__, file=sys.stderr)\n",
            1,
        )
    )
    before = contents(ROOT / "results")
    ended = run_in(clone, BINARY_SEARCH, *QUICK.split(), MEMORIZATION_NO_ENGINE="1")
    assert ended.returncode == 0, ended.stderr
    assert f"worker ['{clone}/training']" in ended.stderr
    assert contents(ROOT / "results") == before
    assert ",987," in (clone / "results" / "mlp_results.csv").read_text()
    (entry,) = map(json.loads, (clone / "results" / "runs.jsonl").read_text().splitlines())
    assert (entry["bits"], entry["version"][:2]) == (987, "9.")
    marked.write_text(original)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_takes_everything_from_its_own_checkout(script, clone, tmp_path):
    """As seen by a hook at the end of the process; nothing of the installed one is imported."""
    (tmp_path / "sitecustomize.py").write_text(
        "import atexit, sys\n"
        f"packages = {PACKAGES.split()}\n"
        "@atexit.register\n"
        "def tell():\n"
        "    for name, module in sys.modules.items():\n"
        "        if name.split('.')[0] in packages:\n"
        "            print('FROM', getattr(module, '__file__', None) or module.__path__[0])\n"
    )
    ended = run_in(clone, script, "--help", path=f"{tmp_path}{os.pathsep}{ROOT}")
    assert ended.returncode == 0, ended.stderr
    places = [line[5:] for line in ended.stdout.splitlines() if line.startswith("FROM ")]
    assert len(places) > 3
    assert all(Path(place).is_relative_to(clone) for place in places), places


def test_a_moved_clone(clone, tmp_path):
    """What is installed points at where the clone was."""
    moved = shutil.copytree(clone, tmp_path / "moved here")
    flags = ["--params", 1000, "--layers", 0, "--dry-run", "--json"]
    ended = run_in(moved, TRAIN_MLP, *flags, path=tmp_path / "gone")
    assert ended.returncode == 0, ended.stderr
    ended = run_in(moved, BINARY_SEARCH, "--help", path=tmp_path / "gone", COLUMNS="1000")
    assert str(moved / "results") in ended.stdout


def test_every_script_begins_with_its_checkout():
    found = {path for path in ROOT.glob("*/*.py") if path.read_text().endswith("\n    run(main)\n")}
    found -= {*ROOT.glob("tests/*.py"), *ROOT.glob("benchmarks/*.py")}
    assert found == set(SCRIPTS)  # those that the test above looks at


def test_a_benchmark_and_the_tests_take_their_own_checkout(clone):
    program = (
        "import sys; sys.modules['torch'] = type(sys)('torch')\n"  # it takes long
        "import machine, engines.cpu; print(engines.cpu.__file__, machine.FOLDER)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=clone / "benchmarks",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ended.stdout == f"{clone}/engines/cpu.py {clone}/results/benchmarks\n", ended.stderr
    (clone / "tests").mkdir()
    (clone / "tests" / "test_where.py").write_text(
        "import training.bits\n\ndef test_where():\n    print(training.bits.__file__)\n"
    )
    ended = subprocess.run(
        [
            sys.executable,
            "-c",
            "import pytest; pytest.main(['-q', '-s', '-p', 'no:cacheprovider'])",
        ],
        cwd=clone,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": "1"},
        capture_output=True,
        text=True,
    )
    assert f"{clone}/training/bits.py" in ended.stdout, ended.stdout + ended.stderr


def test_the_notebook_takes_its_own_checkout(clone, tmp_path):
    """Its first cell with code, from the notebook's folder and from the checkout's."""
    notebook = json.loads((ROOT / "visualizations" / "plots.ipynb").read_text())
    (cell, *_) = (cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    code, its_own, _ = "".join(cell["source"][1:]).partition("from visualizations")
    assert cell["source"][0].startswith("%") and its_own
    program = tmp_path / "cell.py"
    program.write_text(f"{code}\nimport training.bits\nprint(training.bits.__file__)\n")
    for folder in (clone, clone / "visualizations"):
        ended = subprocess.run(
            [sys.executable, str(program)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert ended.stdout == f"{clone}/training/bits.py\n", ended.stderr
