"""Effects with intervals, and tests within strata, of numbers given as arrays. No torch.

An observation has a place ``x`` (a depth, log2 of heads, or 0 and 1 for two groups), a value ``y``
and a stratum: what is compared is always of one stratum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.stats
from scipy.special import stdtr

from visualizations.markdown import interval_text, number

CONFIDENCE = 0.95
PERMUTATIONS = 9_999  # random ones, so the smallest p is 1e-4; all orders where they are no more
RESAMPLES = 9_999  # of the bootstrap
SEED = 0

Array = np.ndarray


@dataclass(frozen=True)
class Effect:
    """An estimate and the ends of its 95 % interval, in the unit of y per unit of x."""

    value: float
    low: float = math.nan
    high: float = math.nan

    @property
    def factor(self) -> Effect:
        """The same of an effect in log units: exponentials."""
        return Effect(*map(math.exp, (self.value, self.low, self.high)))

    @property
    def text(self) -> str:
        """The estimate with its interval, if there is one."""
        return f"{number(self.value)}{interval_text(self.low, self.high)}"


@dataclass(frozen=True)
class OneSided:
    """The p-values of both one-sided tests: is the effect greater, or less, than the bound?

    Of a permutation test also ``least``, the smallest p that any values could have in this design,
    else NaN; and ``orders``, how many there are if all of them were enumerated, else None.
    """

    greater: float
    less: float
    least: float = math.nan
    orders: int | None = None


def slope(x: Array, y: Array, strata: Array, *, with_interval: bool = True) -> Effect:
    """Return the change of ``y`` per unit of ``x`` within strata, by least squares.

    Every stratum has an intercept of its own. For two groups, x = 0 and 1, it is the difference of
    their means, over the strata a mean weighted by n0 n1 / (n0 + n1). The interval is Student's t
    on the HC3 covariance (MacKinnon and White 1985), which lets variances differ. It is for these
    strata and values of x, not for others. NaN if no stratum has two values of x.
    """
    within = _centred(x, strata)
    if not np.any(within):
        return Effect(math.nan)
    value = float(within @ y / (within @ within))
    if not with_interval:
        return Effect(value)
    return Effect(value, *map(float, _robust_fit(x, y, strata).conf_int(1 - CONFIDENCE)[0]))


def _robust_fit(x: Array, y: Array, strata: Array) -> Any:
    from statsmodels.regression.linear_model import OLS  # takes seconds to import

    intercepts = (strata[:, None] == np.unique(strata)).astype(float)
    return OLS(y, np.column_stack([x, intercepts])).fit(cov_type="HC3", use_t=True)


def robust_test(x: Array, y: Array, strata: Array, bound: float = 0.0) -> OneSided:
    """Test by Student's t on the HC3 covariance whether the :func:`slope` is ``bound``.

    The covariance allows every cell its own variance, which a permutation does not: with a wide and
    a narrow cell, or cells of unequal size, permutations reject too often.
    """
    fit = _robust_fit(x, y, strata)
    error = float(fit.bse[0])
    difference = float(fit.params[0]) - bound
    if error == 0:  # no scatter at all: nothing to tell chance from
        return OneSided(1.0, 1.0)
    t = difference / error
    return OneSided(float(stdtr(fit.df_resid, -t)), float(stdtr(fit.df_resid, t)))


def mean_test(values: Array, bound: float = 0.0) -> OneSided:
    """Test by Student's t whether the mean of independent ``values`` is ``bound``."""
    if np.ptp(values) == 0:
        return OneSided(1.0, 1.0)
    greater = float(scipy.stats.ttest_1samp(values, bound, alternative="greater").pvalue)
    return OneSided(greater, 1 - greater)


def permutation_test(x: Array, y: Array, strata: Array, bound: float = 0.0) -> OneSided:
    """Test by permutation within strata whether the :func:`slope` is ``bound``.

    Under the hypothesis that ``y`` - ``bound`` * ``x`` is exchangeable within every stratum, the
    statistic, its covariance with ``x`` within strata, is as extreme for any order of y. Where no
    more than PERMUTATIONS + 1 orders differ, p is the exact share of those at least as extreme;
    else (1 + number of random orders at least as extreme) / (1 + PERMUTATIONS), as in Phipson and
    Smyth 2010, of a generator with a fixed seed.
    """
    y, x = y - bound * x, _centred(x, strata)
    counts = [np.unique(x[strata == s], return_counts=True)[1] for s in np.unique(strata)]
    is_exact = math.prod(map(_enumerated, counts)) <= PERMUTATIONS + 1
    values = (_every_order if is_exact else _random_orders)(x, y, strata)
    observed = x @ y
    rounding = 1e-9 * (1 + np.abs(x) @ np.abs(y))  # equal orders may sum to other last bits
    extreme = [np.sum(values >= observed - rounding), np.sum(values <= observed + rounding)]
    if is_exact:
        orders = math.prod(map(_orders, counts))
        greater, less = (float(count) / len(values) for count in extreme)
        return OneSided(greater, less, 1 / orders, orders)
    greater, less = (float(1 + count) / (1 + PERMUTATIONS) for count in extreme)
    return OneSided(greater, less, 1 / (1 + PERMUTATIONS))


def _orders(counts: Array) -> int:
    """Return in how many ways different values can be dealt to places of so many values each."""
    return math.factorial(counts.sum()) // math.prod(map(math.factorial, counts))


def _enumerated(counts: Array) -> int:
    """Return how many orders of a stratum :func:`_every_order` makes, equal ones among them."""
    is_by_pairs = len(counts) > 1 and min(counts) == 1
    return math.factorial(counts.sum()) if is_by_pairs else _orders(counts)


def _every_order(x: Array, y: Array, strata: Array) -> Array:
    """Return the statistic for every order of y within strata."""
    sums = np.zeros(1)
    for stratum in np.unique(strata):
        own = strata == stratum
        sums = np.add.outer(sums, _orders_of_one(x[own], y[own])).ravel()
    return sums


def _orders_of_one(x: Array, y: Array) -> Array:
    """Return the sum of x * y for every order of y, enumerated by scipy."""
    places, counts = np.unique(x, return_counts=True)
    most = PERMUTATIONS + 1  # none are drawn, because there are no more
    if len(places) == 1:
        return np.array([x @ y])
    if min(counts) == 1:  # scipy deals no groups of one
        return scipy.stats.permutation_test(
            [y],
            lambda values, axis: values @ x,
            permutation_type="pairings",
            n_resamples=most,
            vectorized=True,
        ).null_distribution

    def total(*groups: Array, axis: int) -> Array:
        return np.sum([p * g.sum(axis) for p, g in zip(places, groups, strict=True)], axis=0)

    return scipy.stats.permutation_test(
        [y[x == place] for place in places], total, n_resamples=most, vectorized=True
    ).null_distribution


def _random_orders(x: Array, y: Array, strata: Array) -> Array:
    generator = np.random.default_rng(SEED)
    drawn = np.zeros(PERMUTATIONS)
    for stratum in np.unique(strata):
        own = strata == stratum
        orders = generator.permuted(np.tile(y[own], (PERMUTATIONS, 1)), axis=1)
        drawn += orders @ x[own]
    return drawn


def jonckheere_test(x: Array, y: Array) -> OneSided:
    """Return the Jonckheere-Terpstra test of an increasing, and of a decreasing, trend of ``y``.

    statsmodels' normal approximation, with its correction for ties; p is 1 if all y are equal.
    """
    from statsmodels.stats.nonparametric import jonckheere_terpstra

    if np.all(y == y[0]):
        return OneSided(1.0, 1.0)
    samples = [y[x == place] for place in np.unique(x)]
    p = {side: jonckheere_terpstra(samples, side).pvalue for side in ("larger", "smaller")}
    return OneSided(float(p["larger"]), float(p["smaller"]))


def somers_d(x: Array, y: Array, strata: Array) -> float:
    """Return Somers' D of ``y`` given ``x``, the mean over the strata that have one.

    Of the pairs of a stratum that differ in x, the share in which y has the same order, less that
    in which it has the other. So ties in x leave it 1 at most, unlike Kendall's tau-b.
    """
    found = []
    for stratum in np.unique(strata):
        own = strata == stratum
        if len(set(x[own])) > 1 and len(set(y[own])) > 1:
            found.append(float(scipy.stats.somersd(x[own], y[own]).statistic))
    # Means of fractions that cancel would leave their rounding.
    return round(float(np.mean(found)), 12) if found else math.nan


def median_ratio(above: Array, below: Array) -> Effect:
    """Return the ratio of two medians; its interval is of the percentile bootstrap, fixed seed."""
    found = scipy.stats.bootstrap(
        (above, below),
        lambda a, b, axis: np.median(a, axis=axis) / np.median(b, axis=axis),
        confidence_level=CONFIDENCE,
        n_resamples=RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return Effect(float(np.median(above) / np.median(below)), float(found.low), float(found.high))


def deviations(values: Array) -> Array:
    """Return the absolute deviations from the median, one fewer than there are ``values``.

    The median makes one of them 0 if their number is odd, and the two smallest equal if it is even,
    whatever the scatter. As proposed by Hines and Hines 2000, the zero is left out, and the two
    become one, sqrt(2) times as large; else the test of scatter loses power.
    """
    found = np.sort(np.abs(values - np.median(values)))
    return found[1:] if len(found) % 2 else np.concatenate([math.sqrt(2) * found[:1], found[2:]])


def block_correlation(table: Array) -> tuple[float, float]:
    """Return the mean correlation of the rows of ``table`` (rows, blocks), and a p-value.

    It is told by the sum over the blocks of the squared means of the standardized rows, which is
    larger if rows go up and down together. p is one-sided, of a permutation of every row.
    """
    centred = table - table.mean(axis=1, keepdims=True)
    scale = table.std(axis=1, ddof=1)
    rows = centred[scale > 0] / scale[scale > 0, None]
    count, blocks = rows.shape
    if count < 2 or blocks < 2:
        return math.nan, math.nan
    generator = np.random.default_rng(SEED)
    drawn = np.zeros((PERMUTATIONS, blocks))
    for row in rows:
        drawn += generator.permuted(np.tile(row, (PERMUTATIONS, 1)), axis=1)
    observed = float(np.sum(rows.sum(axis=0) ** 2))
    extreme = np.sum(np.sum(drawn**2, axis=1) >= observed * (1 - 1e-9))
    # The sum is count (blocks - 1) (1 + (count - 1) r) for correlations of mean r.
    correlation = (observed / (count * (blocks - 1)) - 1) / (count - 1)
    return correlation, float(1 + extreme) / (1 + PERMUTATIONS)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values adjusted for all of them by Holm's method (1979), NaN counting as 1.

    The least of m is multiplied by m, the next by m - 1, and so on; none is less than the one
    before, and none more than 1.
    """
    p = np.nan_to_num(p_values, nan=1.0)
    order = np.argsort(p)
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    found = np.empty_like(p)
    found[order] = np.minimum(adjusted, 1.0)
    return [float(value) for value in found]


def _centred(x: Array, strata: Array) -> Array:
    """Return ``x`` less its mean in its stratum."""
    centred = x.astype(float)
    for stratum in np.unique(strata):
        centred[strata == stratum] -= x[strata == stratum].mean()
    return centred
