"""Effects and tests within strata, against scipy, statsmodels' relatives, and brute force."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats

from study import effects
from study.effects import (
    block_correlation,
    deviations,
    holm,
    jonckheere_test,
    mean_test,
    median_ratio,
    permutation_test,
    slope,
    somers_d,
)

ALPHA = 0.05
X = np.repeat([0.0, 1.0], 5)
Y = np.log([90.0, 100, 111, 95, 120, 130, 105, 160, 118, 150])
ONE = np.zeros(10, dtype=int)


def near(p, expected):
    """``p`` of random orders is within four standard errors of ``expected``."""
    error = math.sqrt(expected * (1 - expected) / effects.PERMUTATIONS)
    return abs(p - expected) <= 4 * error + 1 / effects.PERMUTATIONS


def test_two_groups_are_compared_as_by_scipy():
    reference = scipy.stats.permutation_test(
        (Y[5:], Y[:5]), lambda a, b: np.mean(a) - np.mean(b), alternative="greater"
    )
    assert slope(X, Y, ONE).value == pytest.approx(reference.statistic)
    found = permutation_test(X, Y, ONE)
    assert found.greater == pytest.approx(reference.pvalue)  # of all orders, not of some
    assert (found.orders, found.least) == (math.comb(10, 5), 1 / math.comb(10, 5))
    other_way = permutation_test(-X, Y, ONE)
    assert other_way.less == pytest.approx(reference.pvalue)
    assert other_way.greater > 0.9


def test_random_orders_agree_with_all_of_them():
    exact = permutation_test(X, Y, ONE).greater
    drawn = effects._random_orders(X - 0.5, Y, ONE)
    assert near(np.mean(drawn >= (X - 0.5) @ Y - 1e-9), exact)
    wide = permutation_test(np.repeat(X, 2), np.repeat(Y, 2), np.zeros(20, dtype=int))
    assert (wide.orders, wide.least) == (None, 1 / (1 + effects.PERMUTATIONS))


def test_the_least_p_of_three_against_three():
    found = permutation_test(np.repeat([0.0, 1], 3), np.arange(6.0), np.zeros(6))
    assert found.greater == found.least == 0.05 and found.orders == 20
    assert 2 * found.greater == pytest.approx(0.1)


def test_every_order_within_strata():
    x = np.array([0, 0, 1, 1, 0, 1, 1])
    y = np.array([1.0, 5, 4, 7, 2, 9, 9])
    strata = np.array([3, 3, 3, 3, 8, 8, 8])
    centred = np.array([-0.5, -0.5, 0.5, 0.5, -2 / 3, 1 / 3, 1 / 3])
    values = [
        centred @ np.array([*first, *second])
        for first in itertools.permutations(y[:4])
        for second in itertools.permutations(y[4:])
    ]
    observed = centred @ y
    p = permutation_test(x, y, strata)  # one stratum has a group of one search
    assert p.greater == pytest.approx(np.mean([v >= observed - 1e-9 for v in values]))
    assert p.less == pytest.approx(np.mean([v <= observed + 1e-9 for v in values]))
    assert p.orders == math.comb(4, 2) * 3
    assert slope(x, y, strata, with_interval=False).value == pytest.approx(
        observed / (centred @ centred)
    )


def test_a_trend_of_ranks_is_pages():
    ranks = np.array([[1, 2, 4, 3], [1, 3, 2, 4], [2, 1, 4, 3]])
    page = scipy.stats.page_trend_test(ranks, ranked=True, method="exact")
    x, strata = np.tile([1.0, 2, 3, 4], 3), np.repeat([0, 1, 2], 4)
    assert near(permutation_test(x, ranks.ravel().astype(float), strata).greater, page.pvalue)


def test_a_bound_shifts_the_second_group():
    shifted = permutation_test(X, Y - X * math.log(1.25), ONE)
    assert permutation_test(X, Y, ONE, math.log(1.25)) == shifted


def test_the_interval_is_hc3():
    generator = np.random.default_rng(1)
    x = np.tile([0.0, 1, 2, 3], 6)
    strata = np.repeat([0, 1, 2], 8)
    y = 0.3 * x + strata + generator.normal(size=24) * (1 + x)
    design = np.column_stack([x, *(strata == s for s in range(3))]).astype(float)
    inverse = np.linalg.inv(design.T @ design)
    beta = inverse @ design.T @ y
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
    meat = design.T @ np.diag(((y - design @ beta) / (1 - leverage)) ** 2) @ design
    half = scipy.stats.t.ppf(0.975, 20) * math.sqrt((inverse @ meat @ inverse)[0, 0])
    found = slope(x, y, strata)
    assert found.value == pytest.approx(beta[0])
    assert (found.low, found.high) == pytest.approx((beta[0] - half, beta[0] + half))


def test_the_mean_of_paired_differences_is_scipys_paired_t():
    above, below = Y[5:], Y[:5]
    for side in ("greater", "less"):
        paired = scipy.stats.ttest_rel(above, below + math.log(1.1), alternative=side)
        found = getattr(mean_test(above - below, math.log(1.1)), side)
        assert found == pytest.approx(paired.pvalue)
    assert mean_test(np.ones(5)) == effects.OneSided(1.0, 1.0)


def test_no_contrast_no_slope():
    found = slope(np.array([0.0, 1]), np.array([1.0, 2]), np.array([0, 1]))
    assert math.isnan(found.value) and math.isnan(found.low)
    assert math.isnan(slope(np.array([]), np.array([]), np.array([])).value)


def test_jonckheere_is_kendalls_trend():
    x = np.repeat([1.0, 2, 3], 5)
    y = np.array([9.0, 9, 8, 7, 9, 8, 6, 6, 5, 7, 3, 5, 4, 4, 1])
    p = jonckheere_test(x, y)
    for side in ("less", "greater"):
        kendall = scipy.stats.kendalltau(x, y, method="asymptotic", alternative=side)
        assert getattr(p, side) == pytest.approx(kendall.pvalue)
    assert jonckheere_test(x, np.ones(15)) == effects.OneSided(1.0, 1.0)


def test_somers_d_counts_pairs_that_differ_in_x():
    x = np.tile([1, 2, 3], 3)
    y = np.array([1, 2, 3, 3, 2, 2, 5, 5, 5])
    strata = np.repeat([0, 1, 2], 3)
    assert somers_d(x, y, strata) == pytest.approx((1 - 2 / 3) / 2)  # the third has none
    assert math.isnan(somers_d(x[6:], y[6:], strata[6:]))
    generator = np.random.default_rng(2)
    x, y, one = generator.integers(0, 4, 20), generator.integers(0, 9, 20), np.zeros(20)
    pairs = [(i, j) for i, j in itertools.combinations(range(20), 2) if x[i] != x[j]]
    expected = np.mean([np.sign((x[i] - x[j]) * (y[i] - y[j])) for i, j in pairs])
    assert somers_d(x, y, one) == pytest.approx(expected)


def test_somers_d_reaches_one_where_tau_b_does_not():
    depth, size = np.repeat([1, 2, 3, 4, 5], 5), -np.arange(25.0)
    assert somers_d(depth, size, np.zeros(25)) == -1
    assert scipy.stats.kendalltau(depth, size).statistic > -0.92


def test_the_ratio_of_medians(monkeypatch):
    above, below = np.array([2.0, 80, 90, 95, 110]), np.array([500.0, 510, 520, 540, 560])
    found = median_ratio(above, below)
    assert found.value == 90 / 520 and found.low < found.value < found.high
    assert found == median_ratio(above, below)
    generator, hits = np.random.default_rng(8), []
    monkeypatch.setattr(effects, "RESAMPLES", 499)
    for _ in range(200):
        found = median_ratio(*np.exp(generator.normal(0, 0.3, (2, 5))))
        hits.append(found.low <= 1 <= found.high)
    assert np.mean(hits) >= 0.93


def test_deviations_without_what_the_median_fixes():
    assert list(deviations(np.array([7.0, 1, 2]))) == [1, 5]
    assert list(deviations(np.array([0.0, 10, 2, 4]))) == pytest.approx([math.sqrt(2), 3, 7])
    assert list(deviations(np.array([1.0, 5]))) == pytest.approx([math.sqrt(8)])


def test_holm_step_by_step():
    assert holm([0.04, 0.01, math.nan, 0.03]) == pytest.approx([0.09, 0.04, 1.0, 0.09])


def test_holm_is_that_of_statsmodels():
    from statsmodels.stats.multitest import multipletests

    generator = np.random.default_rng(2)
    for count in (1, 2, 7, 40):
        p = np.round(generator.uniform(size=count) ** 3, 2)  # with ties, and zeros
        assert holm(list(p)) == pytest.approx(multipletests(p, method="holm")[1])


def test_the_correlation_of_two_rows_is_pearsons():
    rows = np.array([[1.0, 2, 4, 3, 7], [2.0, 1, 5, 5, 6], [3.0, 3, 3, 3, 3]])
    r, p = block_correlation(rows)
    assert r == pytest.approx(np.corrcoef(rows[:2])[0, 1])
    orders = [np.corrcoef(rows[0], order)[0, 1] for order in itertools.permutations(rows[1])]
    assert near(p, np.mean([order >= r - 1e-9 for order in orders]))
    assert np.isnan(block_correlation(rows[:1])).all()


@pytest.fixture
def few_permutations(monkeypatch):
    monkeypatch.setattr(effects, "PERMUTATIONS", 199)


def simulated(effect, repeats, generator):
    """Two groups of equal size in three strata, effects in log units, scatter 0.2."""
    strata = np.repeat([0, 1, 2], 2 * repeats)
    x = np.tile(np.repeat([0.0, 1.0], repeats), 3)
    return x, strata + effect * x + generator.normal(0, 0.2, len(x)), strata


def rejections(effect, bound, runs=400):
    generator = np.random.default_rng(7)
    tests = [permutation_test(*simulated(effect, 5, generator), bound) for _ in range(runs)]
    return np.mean([test.greater <= ALPHA for test in tests])


def test_the_level_at_the_bound(few_permutations):
    for bound in (0.0, math.log(0.8)):
        assert 0.025 <= rejections(bound, bound) <= 0.08  # 0.05 -+ 2.5 standard errors


def test_the_power(few_permutations):
    assert rejections(0.0, math.log(0.8)) >= 0.8
    assert rejections(math.log(0.6), math.log(0.8), runs=50) == 0


def test_the_level_with_unequal_scatter(few_permutations):
    generator = np.random.default_rng(3)
    found = []
    for _ in range(400):
        y = generator.normal(size=10) * np.where(X == 1, 1.0, 0.1)
        found.append(permutation_test(X, y, ONE).greater <= ALPHA)
    assert np.mean(found) <= 0.11  # equal numbers: more than the level, but not by much


def test_the_level_of_trends_of_scatter(few_permutations):
    """C7: deviations from medians of cells of five, without a trend."""
    generator = np.random.default_rng(4)
    x, one = np.repeat(np.arange(1.0, 6), 4), np.zeros(20, dtype=int)
    found = []
    for _ in range(400):
        values = [generator.permutation(deviations(v)) for v in generator.normal(size=(5, 5))]
        found.append(permutation_test(x, np.concatenate(values), one).greater <= ALPHA)
    assert 0.02 <= np.mean(found) <= 0.08


def test_the_level_of_jonckheere():
    generator = np.random.default_rng(5)
    x = np.repeat(np.arange(1.0, 6), 5)
    found = [jonckheere_test(x, generator.integers(0, 9, 25)).less for _ in range(400)]
    assert 0.025 <= np.mean(np.array(found) <= ALPHA) <= 0.08


def test_the_interval_covers():
    generator = np.random.default_rng(6)
    found = [slope(*simulated(0.5, 5, generator)) for _ in range(300)]
    assert 0.92 <= np.mean([e.low <= 0.5 <= e.high for e in found]) <= 0.98
