"""Figures of any set of configurations, from result CSVs made up for the tests."""

import statistics

import numpy as np
import pytest
from drawn import drawn, legend_labels, only_axes
from made_results import HEADS_2, MLP_1, MLP_30K, write_results, write_widths

from study.comparison import with_published
from training.errors import UserError
from training.probe import BITS_VERSION
from visualizations.drawing import style_of
from visualizations.results import load_results, select
from visualizations.threshold_lines import threshold_figure

WIDTHS = {
    (8, "relu"): [90, 100, 110],
    (16, "relu"): [200, 240],
    (8, "tanh"): [50, 60],
    (16, "tanh"): [120, 121],
}


def test_a_model_that_was_never_published_against_its_width(tmp_path):
    write_widths(tmp_path, WIDTHS)
    figure = threshold_figure(
        load_results(tmp_path), "width", "activation", x_label="width (units)", log_x=True
    )
    axes = only_axes(figure)
    for activation in ("relu", "tanh"):
        x, mean, std = drawn(axes, activation, "ours")
        assert [min((8, 16), key=lambda width: abs(width - place)) for place in x] == [8, 16]
        sizes = [WIDTHS[width, activation] for width in (8, 16)]
        assert mean.tolist() == [statistics.mean(found) for found in sizes]
        np.testing.assert_allclose(std, [statistics.stdev(found) for found in sizes])
    assert legend_labels(figure)[0] == "relu, ours (n = 2 to 3)"
    assert not [label for label in legend_labels(figure) if "published" in label]
    assert (axes.get_xlabel(), axes.get_xscale()) == ("width (units)", "log")
    assert axes.get_xticks().tolist() == [8, 16]


def test_several_models_against_parameters_with_the_published_beside_them(tmp_path):
    write_widths(tmp_path, {(8, "relu"): [90, 100], (16, "relu"): [200, 240]})
    write_results(tmp_path, "mlp", [(MLP_1, [400, 500]), (MLP_30K, [1500, 1700])])
    write_results(tmp_path, "transformer", [(HEADS_2, [20, 24])])
    searches = with_published(load_results(tmp_path))
    figure = threshold_figure(searches, log_x=True, labels={"toy": "a model of mine"})
    axes = only_axes(figure)
    x, mean, _ = drawn(axes, "a model of mine", "ours")
    np.testing.assert_allclose(x, [1708, 3316])  # nothing at one x, so nothing is moved
    assert mean.tolist() == [95, 220]
    x, mean, _ = drawn(axes, "mlp", "ours")
    np.testing.assert_allclose(x, [9949, 30049], rtol=0.02)
    assert mean.tolist() == [450, 1600]
    assert drawn(axes, "mlp", "published")[1].tolist() == [467, 1728]
    assert drawn(axes, "transformer", "published")[1].tolist() == [16.4]
    assert not [label for label in legend_labels(figure) if "mine, published" in label]
    assert axes.get_xlabel() == "parameters (true count)"
    alone = threshold_figure(load_results(tmp_path), log_x=True)
    assert not [label for label in legend_labels(alone) if "published" in label]


def test_no_line_through_two_configurations_at_one_x(tmp_path):
    write_widths(tmp_path, WIDTHS)
    axes = only_axes(threshold_figure(load_results(tmp_path), "width"))
    (container,) = axes.containers
    assert container.lines[0].get_linestyle() == "None"
    assert len(container.lines[0].get_xdata()) == 4


def test_a_column_of_ones_own(tmp_path):
    write_widths(tmp_path, WIDTHS)
    searches = load_results(tmp_path)
    searches["half"] = searches["width"] / 2
    x, _, _ = drawn(only_axes(threshold_figure(searches, "half", "activation")), "relu")
    assert np.round(x).tolist() == [4, 8]


def test_protocols_and_bits_versions_are_not_mixed_in_a_figure(tmp_path):
    other = write_results(tmp_path, "mlp", [(MLP_1, [9, 9])], "paper dropout=0.1").read_text()
    write_results(tmp_path, "mlp", [(MLP_1, [400])], extra=other.partition("\n")[2])
    searches = load_results(tmp_path)
    with pytest.raises(UserError, match=r"mlp has .* several .*\(paper; paper dropout=0\.1\)"):
        threshold_figure(searches)
    axes = only_axes(threshold_figure(searches, series="protocol"))
    assert drawn(axes, "dropout=0.1", "ours")[1].tolist() == [9]
    axes = only_axes(threshold_figure(select(searches, "paper dropout=0.1")))
    assert "(paper dropout=0.1)" in axes.get_title()
    searches.loc[0, "bits"] = BITS_VERSION + 1
    with pytest.raises(UserError, match=rf"several .*\(.*bits version {BITS_VERSION + 1}"):
        threshold_figure(searches.assign(protocol="paper"), series="protocol")


def test_lines_of_different_protocols_say_them(tmp_path):
    path = write_widths(tmp_path, {(8, "relu"): [90, 100]})
    path.write_text(path.read_text().replace("paper", "paper engine=reference"))
    alone = threshold_figure(load_results(tmp_path))
    assert only_axes(alone).get_title().endswith("\n(paper engine=reference)")
    assert legend_labels(alone)[0] == "toy, ours (n = 2)"
    write_results(tmp_path, "mlp", [(MLP_1, [400, 500])])
    figure = threshold_figure(load_results(tmp_path), log_x=True)
    assert legend_labels(figure)[:2] == [
        "mlp, ours (n = 2)",
        "toy (paper engine=reference), ours (n = 2)",
    ]
    assert "engine" not in only_axes(figure).get_title()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"x": "depth"}, "no column depth"),
        ({"x": "width"}, "mlp has no width"),
        ({"x": "model"}, "model is not a number"),
        ({"x": "repeat", "log_x": True}, "repeat is not always positive"),
    ],
)
def test_what_cannot_be_drawn(tmp_path, flags, message):
    write_widths(tmp_path, WIDTHS)
    write_results(tmp_path, "mlp", [(MLP_1, [400])])
    with pytest.raises(UserError, match=message):
        threshold_figure(load_results(tmp_path), **flags)
    with pytest.raises(UserError, match="no searches"):
        threshold_figure(load_results(tmp_path).head(0))


@pytest.mark.parametrize(
    "name",
    ["{}", "a name of some length {}", "a long name that a reader chose, number {}, of a model"],
)
@pytest.mark.parametrize("count", [1, 2, 9])
def test_the_legend_fits_into_the_figure(tmp_path, name, count):
    write_widths(tmp_path, {(8, f"a{k}"): [20, 30] for k in range(count)})
    labels = {f"a{k}": name.format(k) for k in range(count)}
    searches = load_results(tmp_path)
    figure = threshold_figure(searches, "width", "activation", labels=labels)
    figure.draw_without_rendering()
    assert len([label for label in legend_labels(figure) if label.strip()]) == count
    box, page = figure.legends[0].get_window_extent(), figure.bbox
    assert page.x0 <= box.x0 < box.x1 <= page.x1
    assert page.y0 <= box.y0 < box.y1 <= page.y1
    assert only_axes(figure).get_position().height > 0.4


def test_no_two_of_49_series_look_alike():
    styles = [style_of(k) for k in range(49)]
    assert len({(style.color, style.marker) for style in styles}) == 49


@pytest.mark.parametrize("width", [1000, 1001, 1100, 3000])
def test_a_logarithmic_axis_of_any_length_has_labels(tmp_path, width):
    write_widths(tmp_path, {(k, "relu"): [20] for k in np.linspace(999, width, 15).astype(int)})
    axes = only_axes(threshold_figure(load_results(tmp_path), "width", log_x=True))
    axes.figure.draw_without_rendering()
    low, high = axes.get_xlim()
    shown = [t for t in axes.get_xticklabels() if low <= t.get_position()[0] <= high]
    assert len([tick for tick in shown if tick.get_text()]) >= 2
