"""The published numbers: data of the package, whose absence costs only the published column."""

import os
import subprocess
import sys
import zipfile

import pytest
from drawn import legend_labels, only_axes
from made_results import MLP_1, row_of, write_partial, write_results
from scripts import BINARY_SEARCH, ROOT, checkout, run_script

from engines.native.load import load_engine
from study import comparison, published_figures
from study.comparison import comparison_table, published, readable
from visualizations import figures
from visualizations.report import CAPTION

GOOD = comparison.PUBLISHED_TABLES.read_text(encoding="utf-8")
LINES = GOOD.splitlines(keepends=True)
ODD = {
    "missing": (None, "No such file"),
    "folder": ("folder", "Is a directory"),
    "empty": ("", "No columns"),
    "header alone, another": ("a,b\n", "no column"),
    "a column missing": (GOOD.replace("num_heads,", "", 1), ""),
    "a column renamed": (GOOD.replace("std_threshold", "deviation", 1), "no column std_threshold"),
    "text in a number": (GOOD.replace(",467,", ",many,", 1), "many"),
    "a number missing": (GOOD.replace(",467,", ",,", 1), "missing"),
    "a size not whole": (GOOD.replace(",49,,,1", ",49.5,,,1", 1), ""),
    "not finite": (GOOD.replace(",467,", ",inf,", 1), "out of range"),
    "a row twice": (GOOD + LINES[1], "twice"),
    "binary": (b"\x89PNG\xff\xfe", ""),
    "ragged": (GOOD + "1,2,3,4,5,6,7,8,9,10,11,12,13\n", "line 71"),
}


@pytest.fixture(params=ODD)
def odd(request, tmp_path, monkeypatch):
    """Return what the note has to say of an odd file, which stands in the good one's place."""
    content, words = ODD[request.param]
    path = tmp_path / "published_tables.csv"
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.setattr(comparison, "PUBLISHED_TABLES", path)
    return words


def test_an_odd_file_costs_the_published_numbers_alone(odd, tmp_path, capsys):
    rows = published()
    note = capsys.readouterr().err
    assert note.startswith("note: no published numbers: ")
    assert str(tmp_path) in note and odd in note and note.count("\n") == 1
    assert len(rows) == 69
    for column in ("published_mean", "published_median", "published_std", "table"):
        assert rows[column].isna().all()
    folder = tmp_path / "results"
    folder.mkdir()
    table = comparison_table("mlp", write_partial(folder))
    row = row_of(table, MLP_1)
    assert (row["ours_mean"], row["repeats"]) == (480, 3)
    assert readable(table).iloc[1]["published: mean"] == "-"
    assert capsys.readouterr().err == ""  # said once


def test_figures_without_published_numbers(tmp_path, monkeypatch, capsys):
    with_them = len(legend_labels(published_figures.mlp_depth_figure(write_partial(tmp_path))))
    monkeypatch.setattr(comparison, "PUBLISHED_TABLES", tmp_path / "none.csv")
    labels = legend_labels(published_figures.mlp_depth_figure(tmp_path))
    assert "budget 10,000, ours (n = 1 to 3)" in labels
    assert not any("published" in label for label in labels)
    assert len(labels) < with_them
    scatter = only_axes(published_figures.ours_against_published_figure(tmp_path))
    assert "no published numbers" in scatter.get_title()
    for path in tmp_path.glob("*.csv"):
        path.unlink()
    assert len(figures.save_all(tmp_path)) == 8  # nor any of ours


def test_the_rows_are_those_of_the_file():
    rows = published()
    assert rows["table"].notna().all()
    assert len(rows) == len(LINES) - 1
    assert GOOD.count("\n1,mlp,10000,") == ((rows["table"] == 1) & (rows["budget"] == 10000)).sum()


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


def test_a_file_of_fewer_rows_has_the_others_numbers(tmp_path, monkeypatch, capsys):
    path = tmp_path / "published_tables.csv"
    path.write_text("".join(LINES[:4]), encoding="utf-8")
    monkeypatch.setattr(comparison, "PUBLISHED_TABLES", path)
    write_results(tmp_path, "mlp", [(MLP_1, [400])])
    table = comparison_table("mlp", tmp_path)
    assert table["published_mean"].notna().sum() == 3
    assert row_of(table, MLP_1)["published_mean"] == 467
    assert capsys.readouterr().err == ""
