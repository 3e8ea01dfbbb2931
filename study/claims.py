"""The published claims as comparisons of searches: which, within what, against which bound.

A claim holds if each of its parts does. A part names cells, which are configurations, each with its
place ``x`` and its stratum; study/assessment.py looks up their searches and tests. What is
compared and every bound are written here, once; no result is.

Claims about the published transformer and the MLP are about the published rows. The decoder-only
model has none: it is judged at true budgets. Budgets are numbers of parameters, labels where the
published ones are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mlp_experiments.mlp_utils import SPEC as MLP
from study.comparison import Row
from transformer_experiments.decoder_only_utils import OPTIONS
from transformer_experiments.decoder_only_utils import SPEC as DECODER_ONLY
from transformer_experiments.transformer_utils import (
    DEFAULT_HEADS,
    PAPER_CONFIGURATIONS,
    PAPER_DEPTHS,
)
from transformer_experiments.transformer_utils import SPEC as TRANSFORMER
from visualizations.markdown import counted

# The bounds of what words mean, written down before the first test was run, though not blind: five
# repeats of Tables 1 to 4 and single searches of other rows had been seen.
COLLAPSED = 0.1  # of the threshold of one hidden layer
LITTLE = (0.8, 1.25)  # one fifth less to one quarter more: symmetric in logarithms
FAR_MORE = 2.0

DEPTHS = (1, 2, 3, 4, 5)  # hidden layers of an MLP that has any
DEEP = (4, 5)
TRUE_BUDGETS = (10_000, 30_000, 90_000)
SMALLER_LABEL, LARGER_LABEL = 64_000, 128_000  # which C6 compares
SMALLER, LARGER = 34_342, 134_730  # the true counts of two published widths, decoder-only
HEADS = (1, 4, 8)  # at every true budget
# Budgets, depths and heads that the decoder-only model was searched at.
DECODER_ONLY_GRID = {
    10_000: (PAPER_DEPTHS, DEFAULT_HEADS),
    30_000: ((1,), HEADS),
    SMALLER: (PAPER_DEPTHS, DEFAULT_HEADS),
    90_000: ((1,), HEADS),
    LARGER: ((1,), HEADS),
}

Side = Literal["greater", "less"]
Quantity = Literal["log", "spread of log", "spread"]


@dataclass(frozen=True)
class Cell:
    """A configuration: what its searches have in ``where``, and its place and stratum."""

    where: Mapping[str, object]
    x: float
    stratum: int = 0


@dataclass(frozen=True)
class Part:
    """One comparison of a claim, within its strata."""

    name: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Claim:
    """A published claim about one model, as a one-sided hypothesis about an effect in each part.

    The effect is the change per unit of x of a ``quantity`` of first_failure: of its logarithm, so
    that its exponential is a factor; or of its absolute deviation from the median of the cell, in
    log units or in sequences. The claim is that it is ``side`` than ``bound``, which is a factor
    for logarithms. A ``trend`` has three or more places x, and Somers' D.
    """

    label: str
    model: str
    statement: str
    effect: str  # what is changed by one unit of x, for headings
    parts: tuple[Part, ...]
    side: Side = "greater"
    bound: float = 1.0
    quantity: Quantity = "log"
    trend: bool = False
    jonckheere: bool = False  # in place of the permutation test

    @property
    def edge(self) -> float:
        """The bound in the unit of the effect: its logarithm if that is a factor."""
        return math.log(self.bound) if self.quantity == "log" else self.bound


def every_claim(published: Sequence[Row]) -> list[Claim]:
    """Return the claims that have a test, for every model that they are judged for.

    ``published`` are the rows of :func:`~study.comparison.published`, None where a model
    lacks a size. C3 is no hypothesis: without a hidden layer all budgets are the same network.
    """
    mlp = [row for row in published if row["model"] == MLP.name]
    transformer = [row for row in published if row["model"] == TRANSFORMER.name]
    decoder_only = [
        {"model": DECODER_ONLY.name, "budget": budget, "num_layers": depth, "num_heads": heads}
        for budget, (depths, all_heads) in DECODER_ONLY_GRID.items()
        for depth in depths
        for heads in all_heads
    ]
    return [
        *_mlp_claims(mlp),
        *_heads_and_depth(TRANSFORMER.name, transformer),
        _larger_budget(TRANSFORMER.name, transformer, SMALLER_LABEL, LARGER_LABEL),
        *_heads_and_depth(DECODER_ONLY.name, decoder_only),
        _larger_budget(DECODER_ONLY.name, decoder_only, SMALLER, LARGER),
        *_spreads(MLP.name, [row for row in mlp if row["num_layers"] in DEPTHS]),
        *_spreads(TRANSFORMER.name, transformer),
        _published_sizes(mlp, transformer),
        _equal_parameters(mlp, TRANSFORMER.name),
        _equal_parameters(mlp, DECODER_ONLY.name),
    ]


def _mlp_claims(rows: Sequence[Row]) -> Iterator[Claim]:
    by_budget = list(_by_budget(rows))
    one_best = [
        Part(f"{name}: 1 layer / {other}", (*_cells(own, 1, x=1), *_cells(own, other, x=0)))
        for name, own in by_budget
        for other in (0, 2, 3, 4, 5)
    ]
    yield Claim("C1", MLP.name, "one hidden layer is best", "ratio", tuple(one_best))
    trends = [
        Part(name, tuple(cell for depth in DEPTHS for cell in _cells(own, depth, x=depth)))
        for name, own in by_budget
    ]
    statement, unit = "from one hidden layer on, thresholds fall with depth", "factor per layer"
    yield Claim(
        "C2 trend", MLP.name, statement, unit, tuple(trends), "less", trend=True, jonckheere=True
    )
    deep = [
        Part(f"{name}: {depth} layers / 1", (*_cells(own, depth, x=1), *_cells(own, 1, x=0)))
        for name, own in by_budget
        for depth in DEEP
    ]
    statement = f"four and five layers collapse: below {COLLAPSED} of one layer"
    yield Claim(
        "C2 collapse", MLP.name, statement, "ratio", tuple(deep), side="less", bound=COLLAPSED
    )


def _heads_and_depth(model: str, rows: Sequence[Row]) -> Iterator[Claim]:
    """C4, heads at equal budget and depth, and both sides of C5, depth at equal budget and heads.

    C5 is an equivalence: "little" is shown if both sides hold, which are two one-sided tests.
    """
    heads = [
        Part(
            name, tuple(Cell(where_of(r), math.log2(r["num_heads"]), r["num_layers"]) for r in own)
        )
        for name, own in _by_budget(rows)
    ]
    statement = "more heads raise the threshold"
    yield Claim("C4", model, statement, "factor per doubling", tuple(heads), trend=True)
    depth = tuple(
        Part(
            f"{name}: {deep} layers / 1",
            tuple(
                Cell(where_of(r), float(r["num_layers"] == deep), r["num_heads"])
                for r in own
                if r["num_layers"] in (1, deep)
            ),
        )
        for name, own in _by_budget(rows)
        for deep in PAPER_DEPTHS[1:]
        if any(r["num_layers"] == deep for r in own)
    )
    low, high = LITTLE
    statement = f"depth costs little: above {low} times one layer"
    yield Claim("C5 cost", model, statement, "ratio", depth, bound=low)
    statement = f"depth gains little: below {high} times one layer"
    yield Claim("C5 gain", model, statement, "ratio", depth, side="less", bound=high)


def _larger_budget(model: str, rows: Sequence[Row], smaller: int, larger: int) -> Claim:
    parts = []
    for depth in PAPER_DEPTHS:
        at_depth = [row for row in rows if row["num_layers"] == depth]
        below, above = (
            {row["num_heads"]: row for row in at_depth if row["budget"] == budget}
            for budget in (smaller, larger)
        )
        cells = [
            Cell(where_of(by_heads[heads]), x, heads)
            for heads in sorted(below.keys() & above.keys())
            for x, by_heads in ((0.0, below), (1.0, above))
        ]
        if cells:
            parts.append(Part(f"{counted(depth, 'layer')}: {larger:,} / {smaller:,}", tuple(cells)))
    statement = f"a larger budget does not help: below {LITTLE[1]} times the smaller"
    return Claim("C6", model, statement, "ratio", tuple(parts), side="less", bound=LITTLE[1])


def _spreads(model: str, rows: Sequence[Row]) -> Iterator[Claim]:
    """C7, as a trend of absolute deviations from the median of each cell (Brown-Forsythe)."""
    parts = tuple(
        Part(name, tuple(Cell(where_of(r), r["num_layers"], r["num_heads"] or 0) for r in own))
        for name, own in _by_budget(rows)
    )
    statement, unit = "scatter grows with depth, in logarithms", "log units per layer"
    yield Claim(
        "C7 logarithms", model, statement, unit, parts, "greater", 0.0, "spread of log", trend=True
    )
    statement, unit = "scatter grows with depth, in sequences", "sequences per layer"
    yield Claim("C7 sequences", model, statement, unit, parts, "greater", 0.0, "spread", trend=True)


def _published_sizes(mlp: Sequence[Row], transformer: Sequence[Row]) -> Claim:
    """C8 on published rows of one layer: the transformer has more parameters than the MLP."""
    others = [
        (f"mlp {budget:,} / {_budget(other)}, {counted(other['num_heads'], 'head')}", budget, other)
        for budget, label in ((30_000, 32_000), (90_000, 64_000))
        for other in transformer
        if other["budget"] == label and other["num_layers"] == 1
    ]
    return _far_more("published sizes", "beside larger transformers", mlp, others)


def _equal_parameters(mlp: Sequence[Row], model: str) -> Claim:
    """C8 at equal true parameters: one hidden layer against one layer of any number of heads."""
    others = [
        (
            f"{budget:,}: mlp / {counted(heads, 'head')}",
            budget,
            {"model": model, "budget": budget, "num_layers": 1, "num_heads": heads},
        )
        for budget in TRUE_BUDGETS
        for heads in HEADS
    ]
    return _far_more("equal parameters", "at equal parameters", mlp, others)


def _far_more(
    label: str, words: str, mlp: Sequence[Row], others: Sequence[tuple[str, int, Row]]
) -> Claim:
    """C8: ``others`` are the name of a part, the MLP's budget, and what it is compared with."""
    parts = [
        Part(
            name,
            (
                *_cells([row for row in mlp if row["budget"] == budget], 1, x=1),
                Cell(where_of(other), 0.0),
            ),
        )
        for name, budget, other in others
    ]
    statement = f"MLPs memorize at least {FAR_MORE:g} times as much, {words}"
    model = others[0][2]["model"]
    return Claim(f"C8 {label}", model, statement, "ratio", tuple(parts), bound=FAR_MORE)


def where_of(row: Row) -> dict[str, object]:
    """Return what tells the searches of a row: for a published one, its shape by its true size."""
    keys = ["model", "budget", "num_parameters", "num_layers", "num_heads"]
    where = {key: row[key] for key in keys if row.get(key) is not None}
    if row["model"] == DECODER_ONLY.name:
        where |= {name: choices[0] for name, choices in OPTIONS.items()}
    return where


def _cells(rows: Sequence[Row], depth: int, x: float) -> Iterator[Cell]:
    """Yield the cells of the rows of one depth, in one stratum."""
    return (Cell(where_of(row), x) for row in rows if row["num_layers"] == depth)


def _by_budget(rows: Sequence[Row]) -> Iterator[tuple[str, list[Row]]]:
    """Yield the rows of every budget with its name."""
    for budget in dict.fromkeys(row["budget"] for row in rows):
        own = [row for row in rows if row["budget"] == budget]
        yield _budget(own[0]), own


def _budget(row: Row) -> str:
    if row["model"] == TRANSFORMER.name:  # a label, not the number of parameters
        return f"d = {PAPER_CONFIGURATIONS[row['budget']][0]}"
    return f"{row['budget']:,}"
