"""The published numbers: data of the package, joined to searches."""

import math
import os
import subprocess
import sys
import zipfile

import numpy as np
import pandas as pd
import pytest
from made_results import MLP_1, write_results
from scripts import BINARY_SEARCH, ROOT, checkout, run_script

from engines.native.load import load_engine
from study.comparison import published, with_published
from threshold_search.models import MODELS
from threshold_search.plan import published_configurations
from visualizations.report import CAPTION
from visualizations.results import load_results


def test_the_rows_are_those_that_the_specs_solve_for_their_budgets():
    """Shapes and true counts of the file, by the code that trains them."""
    rows = [
        {"model": spec.name, "budget": budget, **architecture.columns()}
        for spec in MODELS.values()
        for architecture, _, budget in published_configurations(spec, spec.protocol(), {})
    ]
    table = published()
    keys = list(rows[-1])
    assert len(table) == 69 and set(table["table"]) == set(range(1, 7))
    expected = pd.DataFrame(rows)[keys].astype({**dict.fromkeys(keys, "Int64"), "model": "str"})
    pd.testing.assert_frame_equal(table[keys], expected)


def test_published_numbers_stand_beside_the_published_task_alone(tmp_path):
    labels = ["paper", "paper dropout=0.1", "paper vocab_size=20 seq_len=5"]
    rows = [write_results(tmp_path, "mlp", [(MLP_1, [9])], label).read_text() for label in labels]
    write_results(tmp_path, "mlp", [], extra="".join(row.partition("\n")[2] for row in rows))
    found = with_published(load_results(tmp_path)).set_index("protocol")["published_mean"]
    np.testing.assert_array_equal(found[labels], [467, 467, math.nan])


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Return the folder of an installation that is not editable, unpacked from a wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    pytest.importorskip("pip")
    command = [sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation"]
    built = subprocess.run(
        [*command, "--quiet", "--wheel-dir", str(folder)],
        cwd=checkout(folder / "source", "results", "tests", "docs", "engine*.so"),
        capture_output=True,
        text=True,
        env={**os.environ, "MEMORIZATION_NO_ENGINE": "1"},  # what it takes to compile is tested
    )
    if "No module named 'setuptools'" in built.stderr or "Cannot import" in built.stderr:
        pytest.skip("needs setuptools")
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert "study/published_tables.csv" in archive.namelist()
        archive.extractall(folder / "site")
    return folder / "site"


def test_an_installation_that_is_not_editable_has_the_published_column(installed, tmp_path):
    log = ROOT / "results" / "mlp_probes.csv"
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "mlp_probes.csv").write_bytes(log.read_bytes())
    script = installed / BINARY_SEARCH.relative_to(ROOT)
    flags = ["--model", "mlp", "--params", 10000, "--layers", 1]
    # Only with the same engine has the log what it is asked for.
    if load_engine() is None:
        pytest.skip("no compiled engine")
    engine = str(ROOT / "engines" / "native" / "engine.so")
    environment = {"PYTHONPATH": str(installed), "MEMORIZATION_ENGINE": engine}
    ended = run_script(script, *flags, cwd=tmp_path, **environment)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[1].split()[-1] == "467"
    assert "nothing was trained" in ended.stderr
    assert (tmp_path / "results" / "mlp_results.csv").exists()


def test_a_moved_clone_without_a_results_folder_starts_afresh(tmp_path):
    source = checkout(tmp_path / "source", "results", "docs")
    assert not (source / "results").exists()
    flags = ["--model", "mlp", "--hidden-size", 2, "--layers", 1, "--repeats", 1, "--max-size", 2]
    script = source / BINARY_SEARCH.relative_to(ROOT)
    # As in a moved clone: the environment still leads to where it was installed from.
    ended = run_script(script, *flags, cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith(CAPTION + "\n")
    names = {path.name for path in (source / "results").iterdir()}
    assert {"mlp_probes.csv", "mlp_results.csv", "runs.jsonl"} <= names
