"""Tables of the study against the CSVs by other means, and of a folder that is not results/."""

import math

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import statsmodels.formula.api as smf
from documents import cells, table_of
from made_results import MLP_1, MLP_4, write_partial, write_results
from scripts import ROOT, run_script

from study import claims, pages
from study.claims import Cell, Part
from study.folder import StudyFolder
from study.gpu_tables import effects_table, limited, machines_table
from training.errors import UserError
from visualizations.markdown import p_text

FOLDER = ROOT / "results" / "h100"
VERDICTS = table_of("docs/replication.md", "verdicts")


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
    *rows, _ = rows_of(machines_table(StudyFolder()))
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
    heads, cost_2, cost_3, gain_2, gain_3 = rows_of(effects_table(StudyFolder()))
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
    assert rows_of(machines_table(StudyFolder()))[-1][2] == effect(
        "log ~ gpu + C(cell)", both, "gpu"
    )


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


def test_repeats_as_observations_say_the_same():
    rows = table_of("docs/replication.md", "blocked")
    is_open = {tuple(row[:2]): row[-1].startswith("open") for row in VERDICTS}
    tested = {key for key, is_it in is_open.items() if not is_it and not key[0].startswith("C7")}
    assert {tuple(row[:2]) for row in rows} == tested - {("C3", "mlp")}
    for row in rows:
        p, blocked_p, opposite, blocked_opposite = (float(text.lstrip("< ")) for text in row[3:])
        assert (p < 0.05, opposite < 0.05) == (blocked_p < 0.05, blocked_opposite < 0.05)
    # The smaller of two budgets, by hand: one ratio per repeat, over the matched heads.
    (row,) = (row for row in rows if row[:2] == ["C6", "decoder-only"])
    own = pd.read_csv(ROOT / "results" / "decoder-only_results.csv")
    own = own.query("protocol == 'paper' and num_layers == 1")
    own = own.assign(log=np.log(own["first_failure"]))
    by_budget = own.pivot_table(index=["num_heads", "repeat"], columns="budget", values="log")
    gains = (by_budget[claims.LARGER] - by_budget[claims.SMALLER]).dropna().groupby("repeat").mean()
    expected = scipy.stats.ttest_1samp(gains, math.log(1.25), alternative="less").pvalue
    assert row[2] == str(len(gains)) and row[4] == p_text(expected)


# Another folder than results/.


def test_the_tables_of_another_folder_are_of_its_searches(tmp_path):
    folder = write_partial(tmp_path)
    (folder / "depth0").mkdir()
    none = {"budget": 10000, "num_parameters": 10100, "hidden_size": 0, "num_layers": 0}
    label = "paper engine=linear-program"
    write_results(folder / "depth0", "mlp", [(none, [431, 433])], protocol=label)
    before = (ROOT / "README.md").read_bytes()
    ended = run_script(ROOT / "study" / "pages.py", "--results-dir", folder, cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    paths = [folder / "summary.csv", folder / "tables.md"]
    assert ended.stdout.splitlines() == [str(path) for path in paths]
    assert (ROOT / "README.md").read_bytes() == before  # that is about results/
    text = paths[1].read_text()
    assert [line[3:] for line in text.splitlines() if line[:3] == "## "] == list(pages.TABLES)
    assert "| mlp 49 x 1 (budget 10,000) | 9,949 | 480 ± 72 (3) |" in text
    assert "| any, by linear program | 432 ± 1 (2) |" in text
    assert "| C1 | mlp | one hidden layer is best |" in text and " | open: fewer than 2" in text
    assert "## gpu-rows\n\nNot measured yet.\n" in text
    again = run_script(
        ROOT / "study" / "pages.py", "--results-dir", folder, "--check", cwd=tmp_path
    )
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    summary = pd.read_csv(paths[0])
    assert summary["ours_mean"].tolist() == [480, 7, 22, 32]
    assert summary["published_mean"].tolist() == [467, 21.6, 16.4, 17]


def test_every_table_of_a_folder_without_searches(tmp_path):
    folder = StudyFolder(tmp_path)
    texts = {name: table(folder) for name, table in pages.TABLES.items()}
    assert {texts[name] for name in ("bits", "most-bits", "converged", "unlucky", "faults")} == {
        "Not measured yet.\n"
    }
    assert texts["headline"].count("not measured") == 3
    with pytest.raises(UserError, match="no results folder"):
        pages.written(tmp_path / "missing")


def test_what_is_due_to_the_protocol_is_told_by_the_searches_of_the_folder(tmp_path):
    """C2 collapse at 10,000 in a world where longer training changes nothing, then much."""
    rows = [(MLP_1, [500, 510]), (MLP_4, [7, 9])]
    path = write_results(tmp_path, "mlp", rows)
    paper = path.read_text()
    converged = pages.TABLES["converged"]
    remarks = []
    for four in ([8, 10], [400, 404]):
        label = claims.MLP.protocol("converged").label(claims.MLP.protocol())
        write_results(tmp_path, "mlp", [(MLP_1, [700, 705]), (MLP_4, four)], protocol=label)
        path.write_text(paper + path.read_text().partition("\n")[2])
        assert "C2 collapse | 10,000: 4 layers / 1" in converged(StudyFolder(tmp_path))
        (line,) = (
            line
            for line in pages.TABLES["verdicts"](StudyFolder(tmp_path)).splitlines()
            if "| C2 collapse |" in line
        )
        remarks.append("at 10,000, where longer training was tried, an artefact" in line)
    assert remarks == [False, True]
