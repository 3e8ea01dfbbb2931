"""The figures and tables, from result CSVs made up for the tests."""

import math
import runpy
import statistics
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from drawn import crosses, drawn, legend_labels, only_axes
from made_results import (
    HEADS_2,
    MLP_1,
    MLP_4,
    row_of,
    write_partial,
    write_results,
)
from matplotlib.figure import Figure
from nbclient import NotebookClient
from scripts import ROOT, run_script

from study import figures
from study.comparison import published
from study.folder import StudyFolder
from training.errors import UserError
from training.probe import BITS_VERSION
from visualizations.figure_files import save
from visualizations.results import load_results, select
from visualizations.threshold_lines import threshold_figure

SCRIPT = ROOT / "visualizations" / "figures.py"
NOTEBOOK = ROOT / "visualizations" / "plots.ipynb"
NAMES = (
    "figure3_mlp_depth",
    "figure4_transformer_heads",
    "ours_against_published",
    "heads",
    "architectures",
    "thresholds_mlp_bijection",
    "thresholds_transformer_bijection",
)


@pytest.fixture
def partial(tmp_path):
    return write_partial(tmp_path)


def test_mlp_figure_draws_the_means_and_deviations_of_the_csv(partial):
    figure = figures.mlp_depth_figure(partial)
    axes = only_axes(figure)
    x, mean, std = drawn(axes, "budget 10,000", "ours")
    assert np.round(x).tolist() == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(mean, [math.nan, 480, math.nan, math.nan, 7, math.nan])
    assert std[1] == pytest.approx(statistics.stdev([400, 500, 540]))
    assert math.isnan(std[4])  # one repeat has no deviation
    x, mean, std = drawn(axes, "budget 30,000", "published")
    assert np.round(x).tolist() == [0, 1, 2, 3, 4, 5]
    assert mean.tolist() == [224, 1728, 995, 256, 118, 16.8]
    np.testing.assert_allclose(std, [0, 0, 0, 0, 0, 18.13])
    assert axes.get_yscale() == "log"
    assert axes.get_xlabel() == "depth (hidden layers)"
    assert "sequences" in axes.get_ylabel()


def test_missing_rows_are_marked_and_counted(partial):
    figure = figures.mlp_depth_figure(partial)
    found = np.round(crosses(only_axes(figure))).astype(int)
    assert [int((found == depth).sum()) for depth in range(6)] == [3, 2, 3, 3, 2, 3]
    labels = legend_labels(figure)
    assert "budget 10,000, ours (n = 1 to 3)" in labels
    assert "budget 90,000, ours (not measured)" in labels
    assert "budget 90,000, published (n = 5)" in labels
    assert labels.count("not measured") == 1


def test_transformer_figure(partial):
    figure = figures.transformer_heads_figure(partial)
    axes = only_axes(figure)
    x, mean, std = drawn(axes, "d = 32", "34,342", "ours")
    assert np.round(np.log2(x)).tolist() == [0, 1, 2, 3]
    np.testing.assert_allclose(mean, [math.nan, 22, math.nan, 32])
    assert std[1] == pytest.approx(math.sqrt(8))
    assert std[3] == pytest.approx(math.sqrt(12))
    _, mean, std = drawn(axes, "d = 64", "published")
    assert mean.tolist() == [18, 22.4, 57.4, 37.2, 31, 77]
    np.testing.assert_allclose(std, [6, 3.29, 7.67, 11.28, 0, 0], atol=1e-9)
    assert len(crosses(axes)) == 2 + 6 + 7
    assert axes.get_xlabel() == "attention heads"
    assert axes.get_xscale() == "log"


def test_transformer_figure_of_another_depth(partial):
    assert figures.transformer_heads_figure(partial, num_layers=3) is None
    deep = row_of(published(), {"hidden_size": 32, "num_layers": 3, "num_heads": 2})
    sizes = {name: deep[name] for name in HEADS_2}
    write_results(partial, "transformer", [(sizes, [11])])
    axes = only_axes(figures.transformer_heads_figure(partial, num_layers=3))
    _, mean, _ = drawn(axes, "d = 32", "published")
    assert mean.tolist() == [9.2, 12.4, 16.8, 17.2]
    np.testing.assert_array_equal(drawn(axes, "d = 32", "ours")[1], [math.nan, 11, *[math.nan] * 2])
    with pytest.raises(UserError, match="1 to 3"):
        figures.transformer_heads_figure(partial, num_layers=4)


def test_scatter_has_one_point_per_measured_row(partial):
    figure = figures.ours_against_published_figure(partial)
    axes = only_axes(figure)
    x, y, std = drawn(axes, "mlp")
    assert (x.tolist(), y.tolist()) == ([467, 21.6], [480, 7])
    assert std[0] == pytest.approx(statistics.stdev([400, 500, 540]))
    x, y, _ = drawn(axes, "transformer")
    assert (x.tolist(), y.tolist()) == ([16.4, 17], [22, 32])
    assert axes.get_xlim() == axes.get_ylim()
    assert len(crosses(axes)) == 65
    assert "not measured (65 of 69 rows)" in legend_labels(figure)


@pytest.mark.parametrize("half", ["ours", "published"])
def test_ours_and_published_differ_without_colour(partial, half):
    axes = only_axes(figures.mlp_depth_figure(partial))
    lines = [c.lines[0] for c in axes.containers if half in c.get_label()]
    assert len({line.get_marker() for line in lines}) == 3
    for line in lines:
        assert line.get_linestyle() == {"ours": "-", "published": "--"}[half]
        hollow = line.get_markerfacecolor() == "white"
        assert hollow == (half == "published")


def test_an_empty_folder_has_nothing_to_draw(tmp_path):
    with pytest.raises(UserError, match="no finished searches of bits version"):
        figures.save_all(tmp_path)
    assert not list(tmp_path.iterdir())


def published_row(folder, architecture):
    return row_of(StudyFolder(folder).published_rows, architecture)


@pytest.mark.parametrize("other", [{"protocol": "paper dropout=0.1"}, {"bits": BITS_VERSION + 1}])
def test_other_protocols_and_bits_versions_do_not_mix(tmp_path, other):
    changed = write_results(tmp_path, "mlp", [(MLP_1, [9, 9])], **other).read_text()
    write_results(tmp_path, "mlp", [(MLP_1, [400])], extra=changed.partition("\n")[2])
    assert published_row(tmp_path, MLP_1)["ours_mean"] == 400
    axes = only_axes(figures.mlp_depth_figure(tmp_path))
    assert np.nanmax(drawn(axes, "budget 10,000", "ours")[1]) == 400
    axes = only_axes(threshold_figure(select(load_results(tmp_path), **other), "num_layers"))
    assert drawn(axes, "mlp", "ours")[1].tolist() == [9]
    assert str(next(iter(other.values()))) in axes.get_title()


def test_a_search_that_hit_its_limit_is_a_lower_bound(tmp_path):
    path = write_results(tmp_path, "mlp", [(MLP_1, [65, 65]), (MLP_4, [9])])
    path.write_text(path.read_text().replace("64,65,", "64,,", 1))
    row = published_row(tmp_path, MLP_1)
    assert (row["capped"], row["ours_mean"], row["threshold_mean"]) == (1, 65, 64)
    for figure in (
        figures.mlp_depth_figure(tmp_path),
        figures.ours_against_published_figure(tmp_path),
    ):
        assert any(label.startswith("at least") for label in legend_labels(figure))


def test_saved_files_hold_no_dates(tmp_path):
    png, pdf = save(Figure(), "empty", tmp_path / "figures")
    assert (png.name, pdf.name) == ("empty.png", "empty.pdf")
    assert png.read_bytes().startswith(b"\x89PNG")
    assert pdf.read_bytes().startswith(b"%PDF")
    assert b"Date" not in pdf.read_bytes()


def test_figures_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "figures").write_text("in the way")
    with pytest.raises(UserError, match=r"cannot write to .*figures"):
        save(Figure(), "empty", tmp_path / "figures")


def test_the_script_writes_every_figure(partial, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--results-dir", str(partial)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    expected = {partial / "figures" / f"{name}.{kind}" for name in NAMES for kind in ("png", "pdf")}
    assert {Path(line) for line in capsys.readouterr().out.splitlines()} == expected
    assert set((partial / "figures").iterdir()) == expected


def test_a_malformed_csv_ends_the_script_in_one_line(tmp_path):
    malformed = tmp_path / "transformer_results.csv"
    malformed.write_text("nonsense\n")
    ended = run_script(SCRIPT, "--results-dir", tmp_path, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.count("\n") == 1
    assert str(malformed) in ended.stderr
    assert list(tmp_path.iterdir()) == [malformed]


def test_a_missing_results_folder_is_not_made(tmp_path):
    with pytest.raises(UserError, match="no results folder"):
        figures.save_all(tmp_path / "missing")
    assert not list(tmp_path.iterdir())


def test_the_notebook_runs_from_any_folder(partial, tmp_path_factory):
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    where = next(
        number
        for number, cell in enumerate(notebook.cells)
        if "parameters" in cell.metadata.get("tags", [])
    )
    chosen = nbformat.v4.new_code_cell(f"results_dir = {str(partial)!r}")
    notebook.cells.insert(where + 1, chosen)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(elsewhere)}})
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    kinds = [output.output_type for output in outputs]
    assert kinds.count("execute_result") == 8
    assert kinds.count("display_data") == len(kinds) - 8 == 4
    assert sum("image/png" in output.data for output in outputs) == 7
    tables = [output.data["text/html"] for output in outputs if "text/html" in output.data]
    assert len(tables) == 1 and "<th>low</th>" in tables[0]
    texts = [output.data["text/markdown"] for output in outputs if "text/markdown" in output.data]
    assert [text.count("not measured") for text in texts[1:]] == [16, 49]
    assert "| 480 ± 72 (3) |" in texts[1]
    assert len(list((partial / "figures").iterdir())) == 2 * len(NAMES)
    assert not list(elsewhere.iterdir())


def test_the_committed_notebook_is_thin_and_has_its_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in cells:
        if "parameters" not in cell.metadata.get("tags", []):
            assert len(cell.source.splitlines()) == 1
            assert cell.outputs
    errors = [o for cell in cells for o in cell.outputs if o.output_type in ("error", "stream")]
    assert not errors
