"""docs/replication.md against the code, and its tables against the CSVs by other means."""

import functools
import itertools
import math
import re

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from documents import table_of
from scripts import ROOT

from study import assessment, claim_tables, claims, effects, pages
from study.folder import StudyFolder
from threshold_search.log.results_folder import DEFAULT_FOLDER
from transformer_experiments.transformer_utils import SPEC
from visualizations.markdown import number, p_text
from visualizations.results import load_results

TEXT = (ROOT / "docs" / "replication.md").read_text()
PROSE = " ".join(TEXT.split())
MLP = pd.read_csv(ROOT / "results" / "mlp_results.csv").query("protocol == 'paper'")
TRANSFORMER = pd.read_csv(ROOT / "results" / "transformer_results.csv")
TRANSFORMER = TRANSFORMER.query("protocol == 'paper'")
PUBLISHED = pd.read_csv(ROOT / "study" / "published_tables.csv")
RESEEDED = ROOT / "results" / "benchmarks" / "reseeded_trainer.csv"
table = functools.partial(table_of, "docs/replication.md")
BUDGETS, OTHERS = (10_000, 30_000, 90_000), (0, 2, 3, 4, 5)


def sizes(budget, depth):
    return MLP.query("budget == @budget and num_layers == @depth")["first_failure"].to_numpy()


def published_mean(budget, depth):
    rows = PUBLISHED.query("budget_label == @budget and num_layers == @depth and model == 'mlp'")
    return rows["mean_threshold"].item()


def test_every_table_of_the_document_is_written():
    names = re.findall(r"<!-- table: ([\w-]+) -->", TEXT)
    elsewhere = "\n".join((ROOT / name).read_text() for name in pages.PAGES)
    assert set(names) <= pages.TABLES.keys() and len(names) == len(set(names)) == 26
    assert all(f"<!-- table: {name} -->" in elsewhere for name in pages.TABLES)  # none for nothing


@functools.cache
def of_claims():
    return {(a.claim.label, a.claim.model): a for a in StudyFolder().assessed}


@pytest.mark.parametrize("key", of_claims(), ids=" ".join)
def test_the_verdict_is_what_the_searches_say(key):
    assessed = of_claims()[key]
    (row,) = (row for row in table("verdicts") if tuple(row[:2]) == key)
    *_, p_holm, p_against, said = row
    assert said.split(":")[0] == assessed.verdict
    sign = 1 if assessed.claim.side == "greater" else -1
    edge = assessed.claim.edge
    if assessed.verdict == assessment.OPEN:
        assert any(e.lacking for e in assessed.evidence)
        assert p_holm == p_against == "-"
        return
    assert (p_holm, p_against) == (p_text(assessed.p_holm), p_text(assessed.p_against_holm))
    if assessed.verdict == assessment.HOLDS:
        assert assessed.p_holm < assessment.LEVEL
        assert all(sign * (e.effect.value - edge) > 0 for e in assessed.evidence)
    elif assessed.verdict == assessment.FAILS:
        assert assessed.p_against_holm < assessment.LEVEL
        assert all(sign * (f.effect.value - edge) < 0 for f in assessed.contradicting)
    is_open = assessed.verdict in (assessment.UNDECIDED, assessment.IN_PART)
    is_too_few = is_open and assessed.least_p_holm >= assessment.LEVEL
    assert (claim_tables.FEW in said) == is_too_few


def test_every_claim_is_in_the_table_and_in_short():
    assert len(table("verdicts")) == len(of_claims()) + 1
    assert [row[0] for row in table("verdicts")].count("C3") == 1
    short = re.search(r"<!-- table: in-short -->\n(.*?)<!-- end -->", TEXT, re.S)[1]
    found = {}
    for line in short.splitlines():
        if heading := re.fullmatch(r"- \*\*(.*)\*\*", line):
            verdict = heading[1].lower()
        else:
            found[re.match(r"    - (C\d.*?) \(([a-z-]+)\): ", line).groups()] = verdict
    assert found.pop(("C3", "mlp")) == claim_tables.BY_CONSTRUCTION
    assert found == {key: assessed.verdict for key, assessed in of_claims().items()}
    one_best = of_claims()["C1", "mlp"]
    if one_best.verdict != assessment.HOLDS:
        ahead = sum(sizes(b, 1).mean() > sizes(b, d).mean() for b in BUDGETS for d in OTHERS)
        assert f"C1 (mlp): one hidden layer is best (as claimed in {ahead} of 15" in short


def test_what_the_document_adds_to_the_verdicts():
    """Sentences below the list, which no table says."""
    ratios = {f.part.name: f.effect for f in of_claims()["C6", "decoder-only"].evidence}
    assert all(effect.low > math.log(claims.LITTLE[1]) for effect in ratios.values())
    costs = of_claims()["C5 cost", "decoder-only"].evidence
    assert all(e.effect.high < math.log(claims.LITTLE[0]) for e in costs)


def exact_p(one, others, bound=1.0):
    """One-sided exact permutation p that `one` is above `bound` times `others`, by scipy alone."""
    return scipy.stats.permutation_test(
        (np.log(one), np.log(bound * others)),
        lambda a, b: np.mean(a) - np.mean(b),
        alternative="greater",
        n_resamples=effects.PERMUTATIONS + 1,
        rng=0,
    ).pvalue


def test_exact_p_values_from_the_csv():
    for _, part, *_, p, orders in table("c1"):
        budget, other = re.fullmatch(r"([\d,]+): 1 layer / (\d)", part).groups()
        one, others = (sizes(int(budget.replace(",", "")), d) for d in (1, int(other)))
        count = math.comb(len(one) + len(others), len(one))
        if count > effects.PERMUTATIONS + 1:
            assert orders == "random (0.0001)"
            continue
        assert orders == f"all {count:,} ({p_text(1 / count)})"
        assert float(p) >= float(p_text(exact_p(one, others)))  # the larger of two
    assert {row[-1] for row in table("c2-trend")} == {"normal approximation"}


def test_the_opposite_is_shown_where_the_effect_is_on_its_side():
    for name in ("c4", "c5", "c6", "c7-sequences"):
        for row in table(name):
            for text in row:
                if found := re.fullmatch(r"([\d.]+); opposite ([\d.]+|< 0.0001)", text):
                    assert float(found[1]) > 0.5
    (row,) = (row for row in table("c6") if row[0] == "decoder-only")
    low = float(row[3].split("(")[1].split(" to ")[0])
    assert low > claims.LITTLE[1] and re.search(r"opposite 0\.000\d$", row[5])


def test_ratios_of_medians_from_the_csv():
    rows = table("c2-medians")
    assert len(rows) == 12
    for part, theirs, ours, searches in rows:
        budget, depth = re.fullmatch(r"([\d,]+): (\d) layers / 1", part).groups()
        budget, depth = int(budget.replace(",", "")), int(depth)
        deep, one = sizes(budget, depth), sizes(budget, 1)
        value, low, high = re.fullmatch(r"(\S+) \((\S+) to (\S+)\)", ours).groups()
        assert value == number(np.median(deep) / np.median(one))
        assert float(low) <= float(value) <= float(high)
        assert float(low) >= float(number(deep.min() / one.max()))
        published = PUBLISHED.query("budget_label == @budget and model == 'mlp'")
        medians = published.set_index("num_layers")["median_threshold"]
        assert theirs == number(medians[depth] / medians[1])
        assert int(searches) == len(deep) + len(one)


def test_one_layer_against_others_from_the_csv():
    rows = table("c1")
    assert len(rows) == 15
    for model, part, theirs, ours, searches, *_ in rows:
        budget, other = re.fullmatch(r"([\d,]+): 1 layer / (\d)", part).groups()
        budget, other = int(budget.replace(",", "")), int(other)
        one, others = sizes(budget, 1), sizes(budget, other)
        ratio = scipy.stats.gmean(one) / scipy.stats.gmean(others)
        assert (model, ours.split(" (")[0]) == ("mlp", number(ratio))
        assert int(searches) == len(one) + len(others)
        assert theirs == number(published_mean(budget, 1) / published_mean(budget, other))


def test_the_trend_with_depth_from_the_csv():
    for (_, budget, theirs, _, d, searches, *_), label in zip(
        table("c2-trend"), (10_000, 30_000, 90_000), strict=True
    ):
        rows = MLP.query("budget == @label and num_layers > 0")
        assert (budget, int(searches)) == (f"{label:,}", len(rows))
        pairs = [(a, b) for a in rows.itertuples() for b in rows.itertuples()]
        signs = [
            np.sign(b.first_failure - a.first_failure)
            for a, b in pairs
            if a.num_layers < b.num_layers
        ]
        assert d == number(np.mean(signs))
        means = [published_mean(label, depth) for depth in claims.DEPTHS]
        falls = [np.sign(b - a) for a, b in itertools.combinations(means, 2)]
        assert theirs.endswith(f"D {number(np.mean(falls))}")


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
    prose = re.sub(r"\bC[1-8]\b|H100|Tables 1 to 4|\b(19|20)\d\d\b|HC3|\]\([^)]*\)", "", prose)
    prose = re.sub(r"repeats 5 to 19", "", prose)
    low, high = claims.LITTLE
    constants = [
        effects.PERMUTATIONS,
        effects.PERMUTATIONS + 1,
        claims.COLLAPSED,
        low,
        high,
        assessment.LEVEL,
    ]
    allowed = {*(f"{value:,g}" for value in constants), f"{claims.FAR_MORE:g}"}
    assert allowed <= set(re.findall(r"\d[\d,.]*\d|\d", prose))
    # Interval, p = 1, D -1, 1 %, widths and the batch, bits, the smallest budget.
    others = {
        "95",
        "1",
        "128",
        "64",
        "32",
        "10",
        "33.22",
        "16",  # bits of a draw
        "416",
        "417",
        "200",
        f"{claims.TRUE_BUDGETS[0]:,}",
    }
    found = sizes(10_000, 4)  # of which the document speaks, see below
    rest = found[found > 2]
    others |= {str((found == 2).sum()), str(rest.min()), str(rest.max())}
    others.add(f"{SPEC.protocol().learning_rate:g}")
    five, three = math.comb(10, 5), math.comb(6, 3)  # orders of so many searches a side
    others |= {str(five), f"{1 / five:.3f}", str(three), f"{1 / three:g}", f"{2 / three:g}"}
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


def test_what_the_reseeded_searches_show():
    searches = pd.read_csv(RESEEDED)
    found = searches.groupby("configuration", sort=False)["first_failure"].agg(list)
    same = [name for name, sizes in found.items() if len(set(sizes)) == 1]
    assert (len(found), len(same)) == (5, 3) and "Three of the five configurations" in PROSE
    a, b = sorted(set(found["41x2"]))
    assert found["41x2"] == [b, a, b, a, b]  # in turn
    assert "41 x 2 alternates between two" in PROSE
    first, *others = found["33x4"]
    assert f"failed first at {first} and the other four at {others[0]}:" in PROSE
    assert others == [others[0]] * 4
    mean, std = np.mean(found["33x4"]), np.std(found["33x4"], ddof=1)
    theirs = PUBLISHED[PUBLISHED["hidden_size"] == 33].iloc[0]
    published = f"{theirs['mean_threshold']:g} ± {theirs['std_threshold']:g}"
    median = f"{theirs['median_threshold']:g}"
    assert f"2: {mean:.1f} ± {std:.1f}, as of one odd run" in PROSE
    assert f"published are {published} with a median of {median}." in PROSE
    assert (PUBLISHED["std_threshold"] == 0).sum() == 32 and len(PUBLISHED) == 69
    assert min(*found["49x1"], *sizes(10_000, 1)) > 467
    narrow = TRANSFORMER.query("hidden_size == 32 and num_heads == 4 and num_layers == 1")
    assert min(*found["d32 ff380 h4 x1"], *narrow.query("d_ff == 380")["first_failure"]) > 18


def fives(mean, median, std, divisor):
    """Every five ascending sizes, 1 or more, of which these numbers are, as they are printed."""
    places = len(f"{std:g}".partition(".")[2])
    total = round(5 * mean)
    lows = itertools.combinations_with_replacement(range(1, median + 1), 2)
    for (low, second), fourth in itertools.product(lows, range(median, total)):
        five = (low, second, median, fourth, total - low - second - median - fourth)
        squares = sum((size - total / 5) ** 2 for size in five)
        if five[4] >= fourth and round(math.sqrt(squares / divisor), places) == std:
            yield five


@pytest.mark.parametrize(
    ("size", "five", "words"),
    [
        (33, (1, 1, 1, 1, 104), "one 104 and four 1 (33 x 4)"),
        (30, (2, 2, 33, 33, 33), "three 33 and two 2 (30 x 5)"),
        (65, (2, 2, 2, 39, 39), "two 39 and three 2 (65 x 5)"),
    ],
)
def test_the_published_searches_of_an_mlp_can_be_told(size, five, words):
    published = PUBLISHED.query("model == 'mlp' and hidden_size == @size").iloc[0]
    mean, median, std = (published[f"{name}_threshold"] for name in ("mean", "median", "std"))
    assert list(fives(mean, int(median), std, 5)) == [five] and words in PROSE
    assert bool(list(fives(mean, int(median), std, 4))) == (size == 33)
    searches = pd.read_csv(RESEEDED)
    ours = searches.loc[searches["configuration"] == "33x4", "first_failure"]
    assert f"divided alike are {ours.mean():.1f} ± {ours.std(ddof=0):.1f}." in PROSE


def test_what_is_said_of_searches_that_end_at_two():
    found = sizes(10_000, 4)
    rest = found[found > 2]
    ended = f"{(found == 2).sum()} of {len(found)} searches end at two"
    assert f"{ended} and the others between {rest.min()} and {rest.max()}:" in PROSE
    ratio = scipy.stats.gmean(found) / scipy.stats.gmean(sizes(10_000, 1))
    assert ratio < 0.1 < np.median(found) / np.median(sizes(10_000, 1))
    assert MLP["first_failure"].min() == 2


def test_later_repeats_alone_give_the_same_verdicts():
    """Five repeats were seen before it was decided to add those of MLPs up to 20."""
    assert "on repeats 5 to 19 alone every verdict about MLPs is the same" in PROSE
    results = load_results(DEFAULT_FOLDER)
    later = results[(results["model"] != "mlp") | (results["repeat"] >= 5)]
    found = {(a.claim.label, a.claim.model): a.verdict for a in assessment.assess(later)}
    assert found == {key: assessed.verdict for key, assessed in of_claims().items()}
