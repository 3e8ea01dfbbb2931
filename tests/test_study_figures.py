"""The figures beyond the published ones, from result CSVs made up for the tests."""

import shutil
import statistics

import pytest
from drawn import crosses, drawn, legend_labels, only_axes
from made_results import HEADS_2, HEADS_8, MLP_1, MLP_4, write_partial, write_results, write_widths

import training.spec
from mlp_experiments.mlp_utils import SPEC as MLP
from study import figures
from study.comparison import LINEAR_PROGRAM
from study.figures import heads_figure, other_figures, protocols_figure, save_all
from threshold_search.log.layout import result_layout
from training.errors import UserError
from training.spec import PRESETS
from visualizations.results import DEFAULT_FOLDER

STUDY = {"heads", "architectures", "protocols"}
CONVERGED = MLP.protocol("converged").label(MLP.protocol())


def test_heads_have_a_panel_per_depth(tmp_path):
    figure = heads_figure(write_partial(tmp_path))
    one, two, three = figure.axes
    assert [panel.get_title()[:8] for panel in figure.axes] == ["1 layer ", "2 layers", "3 layers"]
    x, mean, half = drawn(one, "d = 32, ours")
    assert list(x) == [1, 2, 4, 8]
    assert mean[1] == 22 and mean[3] == 32
    assert half[1] == pytest.approx(statistics.stdev([20, 24]))
    published = drawn(two, "d = 128, published")
    assert list(published[0]) == [1, 2, 4, 8, 16, 32, 64]
    assert len(crosses(three)) == 4 + 6 + 7
    assert "not measured" in legend_labels(figure)


def test_protocols_side_by_side(tmp_path):
    path = write_results(tmp_path, "mlp", [(MLP_1, [400, 500]), (MLP_4, [7, 9])])
    assert protocols_figure(tmp_path) is None
    first = path.read_text()
    write_results(tmp_path, "mlp", [(MLP_1, [700]), (MLP_4, [600])], protocol=CONVERGED)
    path.write_text(first + path.read_text().removeprefix(result_layout(MLP).header + "\n"))
    axes = only_axes(protocols_figure(tmp_path))
    assert drawn(axes, "the paper's protocol", "ours")[1].tolist() == [450, 8]
    assert drawn(axes, "no early stop", "ours")[1].tolist() == [700, 600]
    assert drawn(axes, "the paper's protocol", "published")[1].tolist() == [467, 21.6]
    with pytest.raises(ValueError):  # the published numbers stand beside their own protocol
        drawn(axes, "no early stop", "published")
    assert "protocols" in other_figures(tmp_path)


def test_a_new_preset_breaks_no_figure(tmp_path, monkeypatch):
    toy = {**PRESETS, "patient": {"patience": 9}}
    for module in (figures, training.spec):
        monkeypatch.setattr(module, "PRESETS", toy)
    path = write_results(tmp_path, "mlp", [(MLP_1, [400])])
    first = path.read_text()
    write_results(tmp_path, "mlp", [(MLP_1, [700])], protocol=CONVERGED)
    path.write_text(first + path.read_text().removeprefix(result_layout(MLP).header + "\n"))
    both = legend_labels(protocols_figure(tmp_path))
    assert not any("patient" in label for label in both)  # nothing was searched by it
    write_results(tmp_path, "mlp", [(MLP_1, [600])], protocol="paper patience=9")
    axes = only_axes(protocols_figure(tmp_path))
    assert drawn(axes, "patient", "ours")[1].tolist() == [600]  # alone, and by its own name
    assert {path.stem for path in save_all(tmp_path)} == {"protocols", "thresholds_mlp_bijection"}


def test_no_hidden_layer_may_be_in_a_folder_of_its_own(tmp_path):
    none = {"budget": 10000, "num_parameters": 10100, "hidden_size": 0, "num_layers": 0}
    header = result_layout(MLP).header + "\n"
    path = write_results(tmp_path, "mlp", [(none, [270, 280]), (MLP_1, [400, 500])])
    first = path.read_text()
    write_results(tmp_path, "mlp", [(MLP_1, [700])], protocol=CONVERGED)
    path.write_text(first + path.read_text().removeprefix(header))
    (tmp_path / "depth0").mkdir()
    path = write_results(tmp_path / "depth0", "mlp", [(none, [366, 370])], protocol=CONVERGED)
    first = path.read_text()
    write_results(tmp_path / "depth0", "mlp", [(none, [409])], protocol=LINEAR_PROGRAM)
    path.write_text(first + path.read_text().removeprefix(header))
    figure = protocols_figure(tmp_path)
    axes = only_axes(figure)
    assert drawn(axes, "the paper's protocol", "published")[1].tolist() == [224, 467]
    assert drawn(axes, "the paper's protocol", "ours")[1].tolist() == [275, 450]
    assert drawn(axes, "no early stop", "ours")[1].tolist() == [368, 700]
    assert drawn(axes, "exact", "ours")[1].tolist() == [409]
    assert not any("exact" in text and "published" in text for text in legend_labels(figure))


def test_architectures_of_the_models_that_are_there(tmp_path, capsys):
    write_results(tmp_path, "transformer", [(HEADS_2, [20]), (HEADS_8, [30])])
    assert "architectures" not in other_figures(tmp_path)  # their budget is no true count
    write_results(tmp_path, "mlp", [(MLP_1, [400])])
    titles = [panel.get_title() for panel in other_figures(tmp_path)["architectures"].axes]
    assert titles == ["mlp\n(n = 1)", ""]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("model", "sizes", "names"),
    [
        ("mlp", MLP_1, {"figure3_mlp_depth", "ours_against_published", "architectures"}),
        ("transformer", HEADS_2, {"figure4_transformer_heads", "ours_against_published", "heads"}),
        ("mlp", {**MLP_1, "hidden_size": 48}, {"architectures"}),
    ],
)
def test_only_what_the_folder_has_searches_for_is_drawn(model, sizes, names, tmp_path):
    write_results(tmp_path, model, [(sizes, [20])])
    found = {path.stem for path in save_all(tmp_path)}
    assert found == {*names, f"thresholds_{model}_bijection"}


def test_a_model_of_ones_own_has_a_figure(tmp_path):
    write_widths(tmp_path, {(8, "relu"): [90, 100], (16, "relu"): [200], (8, "tanh"): [50]})
    ((name, figure),) = other_figures(tmp_path).items()
    assert name == "thresholds_toy_bijection"
    assert only_axes(figure).get_title() == "toy: threshold against width"
    assert drawn(only_axes(figure), "relu")[1].tolist() == [95, 200]
    assert drawn(only_axes(figure), "tanh")[1].tolist() == [50]


def test_facts_have_a_figure_of_their_own(tmp_path):
    path = write_results(tmp_path, "mlp", [(MLP_1, [700]), (MLP_4, [600])], "paper task=facts")
    rows = path.read_text().partition("\n")[2]
    write_results(tmp_path, "mlp", [(MLP_1, [400]), (MLP_4, [7])], extra=rows)
    found = other_figures(tmp_path)
    axes = only_axes(found["thresholds_mlp_facts"])
    assert drawn(axes, "ours")[1].tolist() == [700, 600]
    assert "task=facts" in axes.get_title()
    assert drawn(only_axes(found["thresholds_mlp_bijection"]), "ours")[1].tolist() == [400, 7]
    with pytest.raises(ValueError):  # the published numbers are of the other task
        drawn(axes, "published")


def test_a_whole_replication_has_the_figures_of_the_study_and_of_models_of_ones_own(tmp_path):
    for path in DEFAULT_FOLDER.glob("*_results.csv"):
        shutil.copy(path, tmp_path)
    assert set(other_figures(tmp_path)) == STUDY
    write_widths(tmp_path, {(8, "relu"): [90]})
    assert set(other_figures(tmp_path)) == {*STUDY, "thresholds_toy_bijection"}


def test_an_error_of_a_figure_is_an_error(tmp_path, monkeypatch):
    def broken(*_):
        raise UserError("broken")

    monkeypatch.setattr(figures, "protocols_figure", broken)
    with pytest.raises(UserError, match="broken"):
        other_figures(write_partial(tmp_path))
