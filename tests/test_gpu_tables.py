"""The tables of the searches on a GPU against the CSVs, by other means than their own."""

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from documents import cells
from scripts import ROOT

from study.claims import Cell, Part
from study.gpu_tables import effects_table, limited, rows_table

FOLDER = ROOT / "results" / "h100"


@pytest.fixture(scope="module")
def searches():
    table = pd.read_csv(FOLDER / "transformer_results.csv")
    return table.assign(
        log=np.log(table["first_failure"]),
        doublings=np.log2(table["num_heads"]),
        is_deep=(table["num_layers"] > 1).astype(int),
    )


def rows_of(table):
    return [cells(line) for line in table.splitlines()[2:]]


def test_every_configuration_is_there_with_its_mean(searches):
    *rows, _ = rows_of(rows_table())
    groups = searches.groupby(["num_layers", "num_heads"])["first_failure"]
    assert len(rows) == groups.ngroups
    for row, (_, sizes) in zip(rows, groups, strict=True):
        assert row[2] == f"{sizes.mean():,.0f} ± {sizes.std():,.0f} ({len(sizes)})"
        assert float(row[3]) < sizes.min()  # every search is above the published mean


def interval(fitted, name):
    ends = fitted.conf_int().loc[name]
    return [f"{value:#.3g}" for value in np.exp([fitted.params[name], *ends])]


def effect(formula, table, name):
    value, low, high = interval(smf.ols(formula, table).fit(cov_type="HC3", use_t=True), name)
    return f"{value} ({low} to {high})"


def test_the_effects_are_those_of_a_regression(searches):
    heads, cost_2, cost_3, gain_2, gain_3 = rows_of(effects_table())
    assert heads[3] == effect("log ~ doublings + C(num_layers)", searches, "doublings")
    matched = searches[searches["num_heads"] <= 4]
    for depth, rows in ((2, (cost_2, gain_2)), (3, (cost_3, gain_3))):
        own = matched[matched["num_layers"].isin([1, depth])]
        for row in rows:
            assert row[3] == effect("log ~ is_deep + C(num_heads)", own, "is_deep")
            assert row[4] == str(len(own))


def test_the_ratio_of_the_machines_is_within_configurations(searches):
    ours = pd.read_csv(ROOT / "results" / "transformer_results.csv")
    ours = ours[(ours["protocol"] == "paper") & (ours["hidden_size"] == 128)]
    both = pd.concat([ours, searches], keys=[0, 1], names=["gpu"]).reset_index("gpu")
    cell = both["num_layers"].astype(str) + "x" + both["num_heads"].astype(str)
    searched = searches["num_layers"].astype(str) + "x" + searches["num_heads"].astype(str)
    both = both.assign(log=np.log(both["first_failure"]), cell=cell)[cell.isin(searched)]
    assert rows_of(rows_table())[-1][2] == effect("log ~ gpu + C(cell)", both, "gpu")


def test_depth_helps_few_heads_and_not_many():
    """As the document says of both machines at d = 128, and of equal true parameters."""
    ours = pd.read_csv(ROOT / "results" / "transformer_results.csv").query("protocol == 'paper'")
    ours = ours.assign(log=np.log(ours["first_failure"]))

    def ratio(table, depth):
        means = table.groupby(["num_heads", "num_layers"])["log"].mean().unstack()
        return np.exp((means[depth] - means[1]).mean())

    wide = ours[ours["hidden_size"] == 128]
    for depth in (2, 3):
        assert 2 < ratio(wide[wide["num_heads"] <= 4], depth) < 2.5
        assert 0.9 < ratio(wide[wide["num_heads"] >= 8], depth) < 1.1
    for budget in (10_000, 34_342):
        own = ours[ours["budget"] == budget]
        own = own[(own["num_parameters"] / budget - 1).abs() < 0.01]
        assert 0.45 < ratio(own, 3) < 0.55


def test_a_stratum_of_one_place_and_a_cell_of_one_search_are_left_out():
    def row(heads, layers):
        return {"budget": 10, "num_parameters": 10, "num_heads": heads, "num_layers": layers}

    def cell(heads, layers):
        return Cell({"num_heads": heads, "num_layers": layers}, float(layers), heads)

    part = Part("", (cell(1, 1), cell(1, 2), cell(2, 1), cell(2, 2), cell(4, 1)))
    ours = [row(*shape) for shape in ((1, 1), (1, 2), (2, 1), (2, 2), (4, 1)) for _ in range(2)]
    assert limited(part, ours).cells == part.cells[:4]
    ours.remove(row(2, 2))
    assert limited(part, ours).cells == part.cells[:2]
