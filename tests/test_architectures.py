"""Architectures at equal true parameters, from result CSVs made up for the tests."""

import math
import statistics
from dataclasses import dataclass

import numpy as np
import pytest
from drawn import drawn, legend_labels
from made_results import HEADS_2, MLP_1, MLP_30K, write_results, write_widths

from study.architectures import architectures_figure, at_true_budgets, side_by_side
from study.figures import save_all
from study.folder import StudyFolder
from threshold_search.models import MODELS
from training.errors import UserError
from training.spec import Architecture, ModelSpec

EXACT_1 = {**HEADS_2, "budget": 30000, "num_parameters": 30037, "num_heads": 1}
EXACT_4 = {**EXACT_1, "num_parameters": 29800, "num_heads": 4}
TOO_SMALL = {**EXACT_1, "num_parameters": 29699, "num_heads": 8}  # 1.003 % below its budget
BOTH = ["mlp", "transformer"]


@pytest.fixture
def searches(tmp_path):
    write_results(tmp_path, "mlp", [(MLP_1, [400, 500]), (MLP_30K, [1500])])
    rows = [(HEADS_2, [20]), (EXACT_1, [30, 34]), (EXACT_4, [50, 56]), (TOO_SMALL, [9])]
    write_results(tmp_path, "transformer", rows)
    return StudyFolder(tmp_path).paper


def test_only_what_has_as_many_parameters_as_were_asked_for(searches):
    table = at_true_budgets(searches)
    assert list(table["budget"]) == [10000, 30000, 30000, 30000]
    assert set(table["num_parameters"]) == {9949, 30049, 30037, 29800}
    mlp = table[table["num_parameters"] == 9949].iloc[0]
    assert mlp["bits_per_parameter"] == pytest.approx(449 * 10 * math.log2(10) / 9949)


DECODER = {
    "budget": 30000,
    "num_parameters": 29954,
    "hidden_size": 48,
    "d_ff": 194,
    "num_heads": 4,
    "num_layers": 1,
    "head": "tied",
    "position": "learned",
    "norm": "pre",
    "activation": "gelu",
}


def test_other_options_are_other_models(tmp_path):
    rows = [(DECODER, [20, 22]), ({**DECODER, "position": "rope"}, [999])]
    write_results(tmp_path, "decoder-only", rows)
    (row,) = at_true_budgets(StudyFolder(tmp_path).paper).to_dict("records")
    assert (row["position"], row["mean"]) == ("learned", 21)


def test_two_configurations_in_one_place_are_passed_over_with_a_word(tmp_path, capsys):
    write_results(tmp_path, "decoder-only", [(DECODER, [20]), ({**DECODER, "d_ff": 190}, [9])])
    assert architectures_figure(StudyFolder(tmp_path).paper) is None
    note = "decoder-only has several configurations of one kind at the budget 30,000\n"
    assert capsys.readouterr().err == f"note: not among the architectures: {note}"


def toy_spec(solve):
    @dataclass(frozen=True)
    class Toy(Architecture):
        width: int
        activation: str = "relu"
        vocab_size: int = 10
        seq_len: int = 10

        @property
        def num_parameters(self):
            return 201 * self.width + 100

    return ModelSpec("toy", Toy, lambda budget, **_: solve(Toy, budget), build=None)


def test_a_model_that_cannot_be_solved_is_passed_over_with_a_word(tmp_path, monkeypatch, capsys):
    def refuse(toy, budget):
        raise UserError("give --width")

    write_results(tmp_path, "mlp", [(MLP_1, [400, 500])])
    write_widths(tmp_path, {(8, "relu"): [90, 100], (8, "tanh"): [9]})
    monkeypatch.setitem(MODELS, "toy", toy_spec(refuse))
    assert len(save_all(tmp_path)) == 10
    assert capsys.readouterr().err == "note: not among the architectures: toy: give --width\n"
    # One that can be solved is shown, with its default words alone.
    monkeypatch.setitem(MODELS, "toy", toy_spec(lambda toy, budget: toy((budget - 100) // 201)))
    table = at_true_budgets(StudyFolder(tmp_path).paper)
    assert dict(zip(table["model"], table["mean"], strict=True)) == {"toy": 95, "mlp": 450}
    figure = architectures_figure(StudyFolder(tmp_path).paper.assign(num_layers=1))
    assert [panel.get_title().partition("\n")[0] for panel in figure.axes[:2]] == ["mlp", "toy"]


def test_side_by_side(searches):
    text = side_by_side(at_true_budgets(searches))
    assert text.to_dict("list") == {
        "budget": [30000, 30000],
        "num_layers": [1, 1],
        "num_heads": [1, 4],
        "mlp": ["1,500 (1.657), n = 1"] * 2,  # 1499 * 33.22 / 30049
        "transformer": ["32 ± 3 (0.034), n = 2", "53 ± 4 (0.058), n = 2"],
    }


def test_the_figure_has_a_column_per_model(searches):
    figure = architectures_figure(searches)
    axes = np.reshape(figure.axes, (2, 2))
    assert [panel.get_title().partition("\n")[0] for panel in axes[0]] == BOTH
    assert "bits" in axes[1, 0].get_ylabel() and "sequences" in axes[0, 0].get_ylabel()
    x, mean, half = drawn(axes[0, 1], "heads: 4")
    assert (list(x), list(mean)) == ([29800], [53])
    np.testing.assert_allclose(half, statistics.stdev([50, 56]))
    _, bits, half = drawn(axes[1, 0], "no attention")
    np.testing.assert_allclose(bits[0], 449 * 10 * math.log2(10) / 9949)
    np.testing.assert_allclose(half[0] / bits[0], statistics.stdev([400, 500]) / 450)
    assert legend_labels(figure) == ["no attention", "heads: 1", "heads: 4"]


def test_a_depth_without_searches_has_no_figure(searches):
    assert architectures_figure(searches, num_layers=2) is None
