"""docs/replication.md against the code, and its tables against the CSVs by other means."""

import math
import re

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from documents import cells
from scripts import ROOT

from visualizations import assessment, claim_tables, claims, effects, pages
from visualizations.ablations import ABLATED, ABLATION_TABLES, combinations
from visualizations.claim_tables import VERDICTS, p_text
from visualizations.markdown import number

TEXT = (ROOT / "docs" / "replication.md").read_text()
MLP = pd.read_csv(ROOT / "results" / "mlp_results.csv").query("protocol == 'paper'")
PUBLISHED = pd.read_csv(ROOT / "visualizations" / "published_tables.csv")


def table(name):
    """Return the rows of a table of the document."""
    block = re.search(rf"<!-- table: {name} -->\n(.*?)<!-- end -->", TEXT, re.S)[1]
    return [cells(line) for line in block.splitlines()[2:]]


def sizes(budget, depth):
    return MLP.query("budget == @budget and num_layers == @depth")["first_failure"].to_numpy()


def published_mean(budget, depth):
    rows = PUBLISHED.query("budget_label == @budget and num_layers == @depth and model == 'mlp'")
    return rows["mean_threshold"].item()


def test_every_table_of_the_document_is_written():
    names = re.findall(r"<!-- table: ([\w-]+) -->", TEXT)
    here = {**claim_tables.CLAIM_TABLES, **ABLATION_TABLES, "unlucky": None}
    assert sorted(names) == sorted(here) and here.keys() <= pages.TABLES.keys()
    assert "docs/replication.md" in pages.PAGES


@pytest.mark.parametrize("key", VERDICTS, ids=" ".join)
def test_the_verdict_is_what_the_searches_say(key):
    (assessed,) = (a for a in claim_tables._assessed() if (a.claim.label, a.claim.model) == key)
    word, _ = VERDICTS[key]
    assert word == assessed.verdict, (
        f"the searches now say of {key}: {assessed.verdict}. Read docs/replication.md again and "
        "change VERDICTS in visualizations/claim_tables.py"
    )
    sign = 1 if assessed.claim.side == "greater" else -1
    edge = assessed.claim.edge
    if word == assessment.HOLDS:
        assert assessed.p_holm < assessment.LEVEL
        assert all(sign * (f.effect.value - edge) > 0 for f in assessed.findings)
    elif word == assessment.FAILS:
        assert assessed.p_against_holm < assessment.LEVEL
        assert all(sign * (f.effect.value - edge) < 0 for f in assessed.contradicting)
    elif word == assessment.OPEN:
        assert any(finding.lacking for finding in assessed.findings)


def test_verdicts_are_of_claims():
    assert set(VERDICTS) == {(a.claim.label, a.claim.model) for a in claim_tables._assessed()}
    assert [row[0] for row in table("verdicts")].count("C3") == 1
    assert len(table("verdicts")) == len(VERDICTS) + 1


def test_one_layer_against_others_from_the_csv():
    rows = table("c1")
    assert len(rows) == 15
    for model, part, theirs, ours, searches, _ in rows:
        budget, other = re.fullmatch(r"([\d,]+): 1 layer / (\d)", part).groups()
        budget, other = int(budget.replace(",", "")), int(other)
        one, others = sizes(budget, 1), sizes(budget, other)
        ratio = scipy.stats.gmean(one) / scipy.stats.gmean(others)
        assert (model, ours.split(" (")[0]) == ("mlp", number(ratio))
        assert int(searches) == len(one) + len(others)
        assert theirs == number(published_mean(budget, 1) / published_mean(budget, other))


def test_the_trend_with_depth_from_the_csv():
    for (_, budget, theirs, _, tau, searches, _), label in zip(
        table("c2-trend"), (10_000, 30_000, 90_000), strict=True
    ):
        rows = MLP.query("budget == @label and num_layers > 0")
        assert (budget, int(searches)) == (f"{label:,}", len(rows))
        found = scipy.stats.kendalltau(rows["num_layers"], rows["first_failure"]).statistic
        assert tau == number(found)
        means = [published_mean(label, depth) for depth in claims.DEPTHS]
        assert f"tau-b {number(scipy.stats.kendalltau(claims.DEPTHS, means).statistic)}" in theirs


def test_no_hidden_layer_is_one_network():
    """C3 is true by construction: the repeats of the three budgets are equal one by one."""
    linear = MLP[MLP["num_layers"] == 0]
    by_repeat = linear.groupby(["seed", "repeat"])
    assert (by_repeat["first_failure"].nunique() == 1).all()
    assert set(linear["num_parameters"]) == {10_100}
    for row, budget in zip(table("c3"), (10_000, 30_000, 90_000), strict=True):
        assert row[3] == f"{sizes(budget, 0).mean():.1f}"


def test_bits_from_the_csv():
    by_name = {row[0]: row for row in table("bits")}
    _, parameters, ours, searches, theirs = by_name["mlp 49 x 1"]
    bits = (sizes(10_000, 1).mean() - 1) * 10 * np.log2(10) / 9_949
    assert (parameters, int(searches)) == ("9,949", len(sizes(10_000, 1)))
    assert ours.startswith(number(bits))
    assert theirs == number((published_mean(10_000, 1) - 1) * 10 * np.log2(10) / 9_949)


def test_the_prose_has_no_number_but_those_of_the_design():
    prose = re.sub(r"<!-- table.*?<!-- end -->|```.*?```|`[^`]*`", "", TEXT, flags=re.S)
    prose = prose.split("What others report")[0]  # of the literature
    prose = re.sub(r"\bC[1-8]\b|Tables 1 to 4|\b(19|20)\d\d\b|HC3|\]\([^)]*\)", "", prose)
    low, high = claims.LITTLE
    constants = [effects.PERMUTATIONS, claims.COLLAPSED, low, high, assessment.LEVEL]
    allowed = {*(f"{value:,g}" for value in constants), f"{claims.FAR_MORE:g}"}
    assert allowed <= set(re.findall(r"\d[\d,.]*\d|\d", prose))
    # Interval, p = 1, tau-b -1, 1 %, widths and the batch, bits, the smallest budget.
    others = {
        "95",
        "1",
        "128",
        "64",
        "32",
        "10",
        "33.22",
        "416",
        "417",
        "200",
        f"{claims.TRUE_BUDGETS[0]:,}",
    }
    orders = math.comb(10, 5)  # of five searches and five
    others |= {str(orders), f"{1 / orders:.3f}"}
    assert set(re.findall(r"\d[\d,.]*\d|\d", prose)) <= allowed | others


def test_numbers_as_text():
    texts = [number(v) for v in (1699.4, 53.71, 1.956, 0.08391, 0.000824, 0, -0.99999)]
    assert texts == ["1,700", "53.7", "1.96", "0.0839", "0.000824", "0", "-1.00"]
    assert number(float("nan")) == "-"
    assert [p_text(p) for p in (1e-5, 0.00512, float("nan"))] == [
        "< 0.0001",
        "0.0051",
        "not testable yet",
    ]


def test_a_verdict_that_the_data_overturned_has_no_remark(monkeypatch):
    claim = claim_tables._assessed()[0]
    key = claim.claim.label, claim.claim.model
    monkeypatch.setattr(claim_tables, "VERDICTS", {key: (claim.verdict, "as written")})
    assert "as written" in claim_tables.verdicts_table()
    monkeypatch.setattr(claim_tables, "VERDICTS", {key: ("another", "as written")})
    assert "as written" not in claim_tables.verdicts_table()


def test_the_reseeded_searches_once_they_are_there(tmp_path, monkeypatch):
    monkeypatch.setattr(claim_tables, "RESEEDED", tmp_path / "none.csv")
    assert claim_tables.reseeded_table() == "Not measured yet.\n"
    path = tmp_path / "reseeded.csv"
    rows = [("mlp", "49x1", 467), ("mlp", "49x1", 467), ("transformer", "d32 ff380 h4 x1", 18)]
    pd.DataFrame(rows, columns=["model", "configuration", "first_failure"]).to_csv(path)
    monkeypatch.setattr(claim_tables, "RESEEDED", path)
    text = claim_tables.reseeded_table()
    assert "| 49x1 | 467 ± 0 | 467.0 ± 0.0 (2) | 1 |" in text
    assert "| d32 ff380 h4 x1 | 18 ± 0 |" in text


def converged(depth):
    """First failing sizes at the budget of 10,000 by `converged`, from the CSV alone."""
    rows = pd.read_csv(ROOT / "results" / "mlp_results.csv").query(
        "budget == 10000 and num_layers == @depth and protocol.str.contains('max_epochs=5000')"
    )
    return rows["first_failure"].to_numpy()


def test_what_the_verdicts_call_an_artefact_is_one():
    named = {key for key, (_, remark) in VERDICTS.items() if "artefact" in remark}
    assert named == {("C1", "mlp"), ("C2 collapse", "mlp")}
    assert scipy.stats.ttest_ind(converged(2), converged(1), alternative="greater").pvalue < 0.001
    for depth in claims.DEEP:
        assert min(converged(depth)) > claims.COLLAPSED * max(converged(1))
        assert np.mean(sizes(10_000, depth)) < 0.2 * np.mean(sizes(10_000, 1))


def test_the_table_of_single_changes_is_the_log():
    log = pd.read_csv(ROOT / "results" / "mlp_results.csv")
    rows = [row for row in table("ablation-alone") if row[0].startswith("mlp 33 x 4")]
    protocols = ["paper", "paper patience=0", "paper learning_rate=0.003"]
    for protocol, row in zip(protocols, rows, strict=False):
        own = log[(log["num_layers"] == 4) & (log["hidden_size"] == 33)]
        sizes = own.loc[own["protocol"] == protocol, "first_failure"]
        assert row[2] == f"{sizes.mean():,.1f} ± {sizes.std():,.1f} ({len(sizes)})"


def test_a_factorial_design_has_every_combination():
    for ablated in ABLATED:
        if ablated.factorial:
            labels = {ablated.label(changed) for changed in combinations(ablated)}
            assert len(labels) == 2 ** len(ablated.factors)


def test_the_ratios_of_a_factorial_design_are_those_of_paired_searches():
    log = pd.read_csv(ROOT / "results" / "mlp_results.csv").query("hidden_size == 33")
    log = log[~log["protocol"].str.contains("max_epochs=5000")]
    log = log.assign(
        changed=log["protocol"].str.contains("patience=0"),
        others=log["protocol"].str.replace(" patience=0", ""),
        log=np.log(log["first_failure"]),
    )
    assert log["others"].nunique() == 16
    by_repeat = log.groupby(["repeat", "changed"])["log"].mean().unstack()
    effects = by_repeat[True] - by_repeat[False]
    test = scipy.stats.ttest_1samp(effects, 0)
    low, high = np.exp(test.confidence_interval())
    rows = [row for row in table("ablation-factorial") if row[0] == "mlp 33 x 4"]
    (row,) = (row for row in rows if "--patience" in row[1])
    assert row[2] == f"{number(np.exp(effects.mean()))} ({number(low)} to {number(high)})"
    assert row[3] == f"{number(np.exp(effects.min()))} to {number(np.exp(effects.max()))}"
    assert np.sum(effects > np.log(5)) == 1  # the one repeat of which the document speaks


def test_what_is_said_of_single_changes():
    means = {tuple(row[:2]): float(row[2].split()[0]) for row in table("ablation-alone")}
    three, five = (
        {change: mean for (name, change), mean in means.items() if name == row}
        for row in ("mlp 36 x 3", "mlp 30 x 5")
    )
    stop = "`--patience 0`"
    assert min(three["`--learning-rate 0.003`"], three["`--batch-size 1024`"]) > three[stop]
    assert five["`--init orthogonal`"] > five[stop]
    assert five["`--batch-size 1024`"] == five["published protocol"] < 32
    four = {change: mean for (name, change), mean in means.items() if name == "mlp 33 x 4"}
    assert four["all of these"] > four["`--protocol converged`"]


def test_what_is_said_of_unlucky_probes():
    shares = {(row[0], row[2]): float(row[4].split()[0]) for row in table("unlucky")}
    assert shares["mlp, no hidden layer", "224"] == 1
    assert shares["transformer 64 x 1, 16 heads", "31"] == 1
    assert shares["mlp 41 x 2", "417"] == 0 and 0.7 < shares["mlp 41 x 2", "416"] < 0.9
    assert max(shares["mlp 149 x 1", "1,727"], shares["mlp 447 x 1", "3,647"]) < 0.25
    every = pd.read_csv(ROOT / "results" / "mlp_results.csv").query("protocol == 'paper'")
    first = every.drop_duplicates(["num_parameters", "num_layers", "repeat"])["first_failure"]
    assert (first[first > 64] % 32).isin([0, 1]).mean() > 0.4  # 1 in 16 by chance
    assert (PUBLISHED["mean_threshold"] % 32).isin([0, 1]).sum() > 3 * len(PUBLISHED) / 16
    assert sizes(10_000, 2).min() <= 417 <= 441 <= sizes(10_000, 2).max()
    log = pd.read_csv(ROOT / "results" / "mlp_probes.csv").query("protocol == 'paper'")
    near = log[log["hidden_size"].isin([41, 49]) & log["n"].between(400, 600)]
    rest = near["n"] % 32
    assert near.loc[rest.between(1, 4), "memorized"].mean() < 0.2
    assert near.loc[rest == 0, "memorized"].mean() > 0.5
