"""What the searches say about the published claims: effects, tests and verdicts.

    assessed = assess(load_results("results"))
    print([(a.claim.label, a.verdict) for a in assessed])

Every test is one-sided. Each kind of verdict (holds; does not hold; holds in part) is at the level
0.05 over all claims together. A claim is the intersection of its parts, so its p-value is the
largest of theirs (Berger 1982), without further correction; that some part contradicts it is a
union, so that p-value is the smallest of theirs times their number. Nothing is tested before every
configuration of a part has two searches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from study.claims import Cell, Claim, Part, Quantity, every_claim
from study.comparison import Row, matching, published, rows_of
from study.effects import (
    Array,
    Effect,
    OneSided,
    deviations,
    holm,
    jonckheere_test,
    permutation_test,
    robust_test,
    slope,
    somers_d,
)
from visualizations.markdown import number
from visualizations.results import select

LEVEL = 0.05
LEAST_REPEATS = 2  # per configuration, for an interval or a test

HOLDS, IN_PART, FAILS = "holds", "holds in part", "does not hold"
UNDECIDED, OPEN = "not decided", "open"


@dataclass(frozen=True)
class Evidence:
    """What is known of a part of a claim; ``counts`` are the numbers of searches of its cells.

    ``effect`` and ``somers_d`` are NaN where they cannot be told. ``p`` is of the claim,
    ``p_against`` of the opposite; both are NaN, and so is the interval, as long as a cell lacks
    searches. ``least_p`` and ``orders`` are those of the permutation test, as in effects.OneSided.
    """

    claim: Claim
    part: Part
    counts: tuple[int, ...]
    effect: Effect
    somers_d: float
    p: float
    p_against: float
    least_p: float
    orders: int | None
    published_effect: float
    published_d: float

    @property
    def lacking(self) -> int:
        """How many cells have fewer searches than LEAST_REPEATS."""
        return sum(count < LEAST_REPEATS for count in self.counts)

    @property
    def is_against(self) -> bool:
        """Whether the whole interval of the effect is on the other side of the bound."""
        if self.claim.side == "greater":
            return self.effect.high < self.claim.edge
        return self.effect.low > self.claim.edge

    @property
    def margin(self) -> float:
        """How far the effect is beyond the bound, on the claimed side."""
        sign = 1 if self.claim.side == "greater" else -1
        return sign * (self.effect.value - self.claim.edge)

    @property
    def effect_text(self) -> str:
        """Our effect and its interval in the claim's unit, or that there is none yet."""
        if math.isnan(self.effect.value):
            return "too few searches" if any(self.counts) else "not measured"
        effect = self.effect.factor if self.claim.quantity == "log" else self.effect
        return effect.text + ("" if all(self.counts) else ", of a part of the configurations")

    @property
    def published_text(self) -> str:
        """The effect and Somers' D of the published means, as far as there are such."""
        texts = []
        if self.claim.quantity == "log":
            texts.append(number(math.exp(self.published_effect)))
        if self.claim.trend and not math.isnan(self.published_d):
            texts.append(f"D {number(self.published_d)}")
        return ", ".join(texts) or "-"


@dataclass(frozen=True)
class Assessment:
    """A claim, what is known of its parts, and its p-values adjusted for all claims.

    ``least_p_holm`` is what ``p_holm`` would be with the least p that the searches allow, whatever
    they found, 0 where a test has none. ``all_parts`` is the number of parts of all claims.
    """

    claim: Claim
    evidence: tuple[Evidence, ...]
    p_holm: float = math.nan
    p_against_holm: float = math.nan
    least_p_holm: float = math.nan
    all_parts: int = 1

    @property
    def p(self) -> float:
        """Of the claim: the largest of its parts', NaN if one has none."""
        return float(np.max([e.p for e in self.evidence]))

    @property
    def p_against(self) -> float:
        """That some part contradicts the claim: Bonferroni over the parts, NaN if one has none."""
        smallest = np.min([e.p_against for e in self.evidence])
        return float(np.minimum(1.0, smallest * len(self.evidence)))

    @property
    def least_p(self) -> float:
        """The least that ``p`` can be in this design."""
        return float(max(np.nan_to_num(e.least_p) for e in self.evidence))

    @property
    def as_claimed(self) -> list[Evidence]:
        """The parts whose effect is beyond the bound on the claimed side, significant or not."""
        return [e for e in self.evidence if e.margin > 0]

    @property
    def searches(self) -> int:
        """The number of searches, each counted once though it may be in several parts."""
        cells = {
            frozenset(cell.where.items()): count
            for e in self.evidence
            for cell, count in zip(e.part.cells, e.counts, strict=True)
        }
        return sum(cells.values())

    @property
    def supporting(self) -> list[Evidence]:
        """The parts that hold by themselves, Bonferroni over all parts of all claims."""
        return [e for e in self.evidence if e.p * self.all_parts < LEVEL]

    @property
    def contradicting(self) -> list[Evidence]:
        """The parts whose opposite holds, likewise."""
        return [e for e in self.evidence if e.p_against * self.all_parts < LEVEL]

    @property
    def weakest(self) -> Evidence:
        """The part whose effect supports the claim least; one without an effect before any."""
        return min(self.evidence, key=lambda e: -math.inf if math.isnan(e.margin) else e.margin)

    @property
    def verdict(self) -> str:
        """One of the five words above.

        "Not decided": tested, but neither shown nor contradicted. "Open": not tested, because
        searches are lacking.
        """
        if math.isnan(self.p):
            return OPEN
        if self.p_holm < LEVEL:
            return HOLDS
        if self.supporting:
            return IN_PART
        return FAILS if self.p_against_holm < LEVEL else UNDECIDED


def assess(searches: pd.DataFrame) -> list[Assessment]:
    """Return the assessment of every claim, from rows of results.load_results.

    Only the published protocol counts, in the current bits version.
    """
    ours, theirs = rows_of(select(searches)), rows_of(published())
    assessed = [
        Assessment(claim, tuple(evidence_of(claim, part, ours, theirs) for part in claim.parts))
        for claim in every_claim(theirs)
    ]
    # What cannot be tested yet counts as 1: so more data never make another claim's p larger.
    p = [a.p for a in assessed]
    p_holm, p_against_holm = holm(p), holm([a.p_against for a in assessed])
    all_parts = sum(len(a.evidence) for a in assessed)
    return [
        replace(
            a,
            p_holm=p_holm[i],
            p_against_holm=p_against_holm[i],
            least_p_holm=holm([*p[:i], a.least_p, *p[i + 1 :]])[i],
            all_parts=all_parts,
        )
        for i, a in enumerate(assessed)
    ]


def evidence_of(claim: Claim, part: Part, ours: Sequence[Row], theirs: Sequence[Row]) -> Evidence:
    """Return what the searches ``ours`` and the published rows ``theirs`` say of a part."""
    found = [matching(ours, cell.where) for cell in part.cells]
    sizes = [np.array([row["first_failure"] for row in rows], dtype=float) for rows in found]
    x, y, strata = _stacked(part.cells, [_quantity(s, claim.quantity) for s in sizes])
    is_testable = all(len(own) >= LEAST_REPEATS for own in sizes)
    effect = slope(x, y, strata, with_interval=is_testable)
    if claim.quantity != "log" and not is_testable:  # one search has no scatter
        effect = Effect(math.nan)
    p = ordered = OneSided(math.nan, math.nan)
    if is_testable:
        ordered = (
            jonckheere_test(x, y)
            if claim.jonckheere
            else permutation_test(x, y, strata, claim.edge)
        )
        # The first assumes equal distributions, the second large samples: neither alone suffices.
        robust = robust_test(x, y, strata, claim.edge)
        p = OneSided(max(ordered.greater, robust.greater), max(ordered.less, robust.less))
    published_effect, published_d = _published(claim, part, theirs)
    has_d = claim.trend and not math.isnan(effect.value)
    return Evidence(
        claim=claim,
        part=part,
        counts=tuple(len(own) for own in sizes),
        effect=effect,
        somers_d=somers_d(x, y, strata) if has_d else math.nan,
        p=getattr(p, claim.side),
        p_against=p.less if claim.side == "greater" else p.greater,
        least_p=ordered.least,
        orders=ordered.orders,
        published_effect=published_effect,
        published_d=published_d,
    )


def _published(claim: Claim, part: Part, theirs: Sequence[Row]) -> tuple[float, float]:
    """Return the effect and Somers' D of the published means, each of which counts as one search.

    Of scatter only D, of the published standard deviations (or their ratios to the means).
    """
    rows = [row for cell in part.cells for row in matching(theirs, cell.where)]
    if len(rows) < len(part.cells) or any(row["published_mean"] is None for row in rows):
        return math.nan, math.nan
    means = np.array([row["published_mean"] for row in rows])
    stds = np.array([row["published_std"] for row in rows])
    values = {"log": np.log(means), "spread": stds, "spread of log": stds / means}
    x, y, strata = _stacked(part.cells, [np.array([v]) for v in values[claim.quantity]])
    effect = slope(x, y, strata, with_interval=False).value if claim.quantity == "log" else math.nan
    return effect, somers_d(x, y, strata) if claim.trend else math.nan


def _quantity(sizes: Array, quantity: Quantity) -> Array:
    """Return what is compared, of the searches of one configuration."""
    values = sizes if quantity == "spread" else np.log(sizes)
    if quantity == "log" or not len(values):
        return values
    return deviations(values)


def _stacked(cells: Sequence[Cell], values: Sequence[Array]) -> tuple[Array, Array, Array]:
    """Return x, y and stratum of every value."""
    counts = [len(own) for own in values]
    x = np.repeat([cell.x for cell in cells], counts)
    strata = np.repeat([cell.stratum for cell in cells], counts)
    return x, np.concatenate(values), strata
