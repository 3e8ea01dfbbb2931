"""Verdicts on searches made up from a known truth."""

import math

import numpy as np
import pytest
from made_results import write_results

from study import claims, effects
from study.assessment import (
    FAILS,
    HOLDS,
    IN_PART,
    LEVEL,
    OPEN,
    UNDECIDED,
    assess,
)
from study.comparison import matching, published, rows_of
from visualizations.results import load_results

PUBLISHED = rows_of(published())
GPT2 = {"head": "tied", "position": "learned", "norm": "pre", "activation": "gelu"}
DRAWS = np.random.default_rng(11).normal(size=100_000)


def shapes():
    """Return every configuration that a claim is about, by model."""
    rows = {"mlp": [], "transformer": [], "decoder-only": []}
    for row in PUBLISHED:
        sizes = ["budget", "num_parameters", "hidden_size", "num_layers", "d_ff", "num_heads"]
        rows[row["model"]].append({k: row[k] for k in sizes if row[k] is not None})
    shape = {"hidden_size": 32, "d_ff": 64}
    for budget in claims.TRUE_BUDGETS:
        for heads in claims.HEADS:
            solved = {**shape, "budget": budget, "num_parameters": budget + 50}
            rows["transformer"].append({**solved, "num_layers": 1, "num_heads": heads})
    for budget, (depths, all_heads) in claims.DECODER_ONLY_GRID.items():
        for depth in depths:
            for heads in all_heads:
                solved = {**shape, "budget": budget, "num_parameters": budget - 50}
                rows["decoder-only"].append(
                    {**solved, "num_layers": depth, "num_heads": heads, **GPT2}
                )
    return rows


def as_claimed(model, row):
    """Return a median threshold and a scatter, in log units, with which every claim holds."""
    depth = row["num_layers"]
    if model == "mlp":
        if depth == 0:
            return 20_000, 0.02
        # Scatter that doubles with every layer falls in sequences: the threshold falls faster.
        return row["budget"] * 4 * {1: 1, 2: 0.4, 3: 0.1, 4: 0.03, 5: 0.008}[depth], 0.01 * 2**depth
    return 900 * row["num_heads"] ** 0.3, 0.01 * 3**depth


def reversed_claims(model, row):
    depth, heads = row["num_layers"], row.get("num_heads", 1)
    if model == "mlp":
        return 100 * 3**depth if depth else 5_000, 0.5 * 0.4**depth
    return row["budget"] * heads**-0.3 * 0.5**depth, 0.3 * 0.3**depth


def searches_of(folder, truth, repeats):
    """Return the searches of a world with this truth."""
    draws = iter(DRAWS)
    for model, rows in shapes().items():
        failures = []
        for row in rows:
            median, scatter = truth(model, row)
            sizes = [median * math.exp(scatter * next(draws)) for _ in range(repeats)]
            failures.append((row, [max(1, round(size)) for size in sizes]))
        write_results(folder, model, failures)
    return load_results(folder)


@pytest.fixture(scope="module")
def assessed(claimed):
    return assess(claimed)


def verdicts(assessed):
    return {(a.claim.label, a.claim.model): a.verdict for a in assessed}


@pytest.fixture(scope="module", autouse=True)
def fewer_permutations():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(effects, "PERMUTATIONS", 2_499)  # enough for a p of one part in 96
        yield


@pytest.fixture(scope="module")
def claimed(tmp_path_factory):
    return searches_of(tmp_path_factory.mktemp("claimed"), as_claimed, 8)


def test_claims_that_are_true_hold(assessed):
    found = verdicts(assessed)
    assert found.pop(("C7 sequences", "mlp")) == FAILS
    assert set(found.values()) == {HOLDS}, found


def test_claims_whose_opposite_is_true_do_not(tmp_path):
    assessed = assess(searches_of(tmp_path, reversed_claims, 8))
    found = verdicts(assessed)
    # Less depth costs nothing, so nothing contradicts that it gains little; it holds.
    gains = {key: found.pop(key) for key in list(found) if key[0] == "C5 gain"}
    assert set(gains.values()) == {HOLDS}
    scatter = {found.pop(key) for key in list(found) if key[0].startswith("C7")}
    assert HOLDS not in scatter
    assert set(found.values()) == {FAILS}, found
    for a in assessed:
        if a.verdict == FAILS:
            assert a.p_holm == 1 and not a.supporting
            assert a.contradicting or a.p_against * len(assessed) > LEVEL


def test_a_claim_that_one_part_contradicts_holds_in_part(claimed):
    rows = claimed.copy()
    deep = (rows["model"] == "mlp") & (rows["budget"] == 90_000) & (rows["num_layers"] == 2)
    rows.loc[deep, "first_failure"] *= 3
    (found,) = [a for a in assess(rows) if a.claim.label == "C1"]
    assert found.verdict == IN_PART
    assert [f.part.name for f in found.contradicting] == ["90,000: 1 layer / 2"]
    assert len(found.supporting) == len(found.evidence) - 1
    assert found.weakest is found.contradicting[0]


def test_no_difference_shows_nothing_that_is_wrong(tmp_path):
    found = verdicts(assess(searches_of(tmp_path, lambda model, row: (500, 1.0), 3)))
    for (label, model), word in found.items():
        if label in ("C2 collapse", "C8 published sizes", "C8 equal parameters"):
            assert word in (UNDECIDED, FAILS), (label, model)
        elif label[:2] in ("C5", "C6"):  # true
            assert word in (UNDECIDED, IN_PART, HOLDS), (label, model)
        else:
            assert word == UNDECIDED, (label, model)


def test_one_search_each_leaves_all_open(claimed):
    assessed = assess(claimed[claimed["repeat"] == 0])
    assert set(verdicts(assessed).values()) == {OPEN}
    for a in assessed:
        assert math.isnan(a.p) and a.p_holm == 1
        for e in a.evidence:
            assert e.lacking == len(e.counts)
            assert math.isnan(e.effect.low)
            assert math.isnan(e.effect.value) == (a.claim.quantity != "log")


def test_nothing_searched(claimed):
    assessed = assess(claimed.iloc[:0])
    assert set(verdicts(assessed).values()) == {OPEN}
    assert {a.searches for a in assessed} == {0}


def test_one_part_without_searches_opens_its_claims(claimed):
    wide = (claimed["hidden_size"] == 128) & (claimed["num_heads"] == 64)
    found = verdicts(assess(claimed[~wide]))
    opened = {key for key, word in found.items() if word == OPEN}
    assert opened == {
        (label, "transformer")
        for label in ("C4", "C5 cost", "C5 gain", "C7 logarithms", "C7 sequences")
    }


def test_a_ratio_of_geometric_means(claimed, assessed):
    by_name = {(a.claim.label, a.claim.model): a for a in assessed}
    e = by_name["C1", "mlp"].evidence[1]
    own = claimed[(claimed["model"] == "mlp") & (claimed["budget"] == 10_000)]
    logs = {d: np.log(g.astype(float)) for d, g in own.groupby("num_layers")["first_failure"]}
    assert e.effect.value == pytest.approx(logs[1].mean() - logs[2].mean())
    assert e.published_effect == pytest.approx(math.log(467 / 416))
    assert by_name["C1", "mlp"].searches == 3 * 6 * 8  # each once, though in many parts
    trend = by_name["C2 trend", "mlp"].evidence
    assert [f.published_d for f in trend[:2]] == pytest.approx([-1, -1])


def test_other_searches_do_not_count(claimed):
    rows = rows_of(claimed)
    label = {"model": "transformer", "budget": 32_000, "num_layers": 1, "num_heads": 4}
    # Without a number of parameters it has to be that of the budget, which the label is not.
    assert matching(rows, label) == []
    assert len(matching(rows, {**label, "num_parameters": 34_342})) == 8
    assert matching(rows, {**label, "num_parameters": 32_050}) == []
    other = claimed.assign(protocol="paper patience=0")
    assert {a.searches for a in assess(other)} == {0}


def test_p_values_are_adjusted_over_all_claims(assessed):
    p = sorted(a.p for a in assessed)
    smallest = min(assessed, key=lambda a: a.p)
    assert smallest.p_holm == pytest.approx(min(1, p[0] * len(assessed)))
    assert all(a.p == max(f.p for f in a.evidence) for a in assessed)
    assert all(a.p_holm >= a.p for a in assessed)


def test_what_so_few_searches_cannot_show(claimed):
    """Three against three: 20 orders, a p of 0.05 at least, whatever the thresholds are."""
    few = assess(claimed[claimed["repeat"] < 3])
    (one_best,) = [a for a in few if a.claim.label == "C1"]
    assert {(f.orders, f.least_p) for f in one_best.evidence} == {(20, 0.05)}
    assert one_best.verdict == UNDECIDED and one_best.least_p_holm > LEVEL
    assert len(one_best.as_claimed) == len(one_best.evidence)  # shown by none, yet all alike
    (trend,) = [a for a in few if a.claim.label == "C2 trend"]
    assert trend.least_p == 0 and trend.verdict == HOLDS
