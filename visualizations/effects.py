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

CONFIDENCE = 0.95
PERMUTATIONS = 9_999  # so the smallest p is 1e-4
SEED = 0

Array = np.ndarray


@dataclass(frozen=True)
class Effect:
    """An estimate and the ends of its 95 % interval, in the unit of y per unit of x."""

    value: float
    low: float = math.nan
    high: float = math.nan


@dataclass(frozen=True)
class OneSided:
    """The p-values of both one-sided tests: is the effect greater, or less, than the bound?"""

    greater: float
    less: float


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
    return Effect(value, *_interval(x, y, strata)) if with_interval else Effect(value)


def _interval(x: Array, y: Array, strata: Array) -> tuple[float, float]:
    low, high = _robust_fit(x, y, strata).conf_int(1 - CONFIDENCE)[0]
    return float(low), float(high)


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


def permutation_test(x: Array, y: Array, strata: Array, bound: float = 0.0) -> OneSided:
    """Test by permutation within strata whether the :func:`slope` is ``bound``.

    Under the hypothesis that ``y`` - ``bound`` * ``x`` is exchangeable within every stratum, the
    statistic, its covariance with ``x`` within strata, is as extreme for any order of y. p is
    (1 + number of random orders at least as extreme) / (1 + PERMUTATIONS), as in Phipson and Smyth
    2010, of a generator with a fixed seed.
    """
    y, x = y - bound * x, _centred(x, strata)
    generator = np.random.default_rng(SEED)
    drawn = np.zeros(PERMUTATIONS)
    for stratum in np.unique(strata):
        own = strata == stratum
        orders = generator.permuted(np.tile(y[own], (PERMUTATIONS, 1)), axis=1)
        drawn += orders @ x[own]
    observed = x @ y
    rounding = 1e-9 * (1 + np.abs(x) @ np.abs(y))  # equal orders may sum to other last bits
    return OneSided(
        greater=float(1 + np.sum(drawn >= observed - rounding)) / (1 + PERMUTATIONS),
        less=float(1 + np.sum(drawn <= observed + rounding)) / (1 + PERMUTATIONS),
    )


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


def mean_tau(x: Array, y: Array, strata: Array) -> float:
    """Return Kendall's tau-b between ``x`` and ``y``, the mean over the strata that have one."""
    taus = []
    for stratum in np.unique(strata):
        own = strata == stratum
        if len(set(x[own])) > 1 and len(set(y[own])) > 1:
            taus.append(float(scipy.stats.kendalltau(x[own], y[own]).statistic))
    return float(np.mean(taus)) if taus else math.nan


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
    """Return p-values adjusted for all of them by Holm's method, NaN counting as 1."""
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(np.nan_to_num(p_values, nan=1.0), method="holm")[1]]


def _centred(x: Array, strata: Array) -> Array:
    """Return ``x`` less its mean in its stratum."""
    centred = x.astype(float)
    for stratum in np.unique(strata):
        centred[strata == stratum] -= x[strata == stratum].mean()
    return centred
