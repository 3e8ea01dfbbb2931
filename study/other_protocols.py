"""The claims C1, C2 and C8 among searches by other protocols, for docs/replication.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlp_experiments.mlp_utils import SPEC as MLP
from study.ablations import current_searches, numbers, searched_with
from study.assessment import find, matching, rows_of
from study.claim_tables import effect_text, published_text
from study.claims import Claim, Part, every_claim
from study.comparison import published
from study.effects import slope
from threshold_search.log.results_folder import DEFAULT_FOLDER
from training.spec import ModelSpec
from transformer_experiments.transformer_utils import SPEC as TRANSFORMER
from visualizations.markdown import interval_text, markdown, number
from visualizations.results import select
from visualizations.summary import bits_per_parameter

DEPTH_0 = DEFAULT_FOLDER / "depth0"
SIZES = "C8 published sizes"
# What is changed of a model's published protocol, for C8; the MLPs' has no dropout.
CHANGED: Mapping[str, Callable[[ModelSpec], str]] = {
    "`--patience 0 --dropout 0`": lambda spec: _label(spec, patience=0, dropout=0.0),
    "`--protocol converged`": lambda spec: _label(spec, "converged"),
}


def converged_table() -> str:
    """C1 and C2 at the budgets that were searched by `converged`, beside the published protocol."""
    every = pd.concat([current_searches(), current_searches(DEPTH_0)])
    ours, theirs = rows_of(select(every)), rows_of(published())
    converged = rows_of(every[every["protocol"] == _label(MLP, "converged")])
    rows = []
    for claim in every_claim(theirs):
        if not claim.label.startswith(("C1", "C2")):
            continue
        for part in claim.parts:
            then = find(claim, part, converged, theirs)
            if min(then.counts):
                now = find(claim, part, ours, theirs)
                texts = [published_text(claim, now), *(effect_text(claim, f) for f in (now, then))]
                rows.append([claim.label, part.name, *texts, sum(then.counts)])
    if not rows:
        return "Not measured yet.\n"
    headings = ["claim", "part", "published", "ours, published protocol (95 % interval)"]
    return markdown([*headings, "ours, converged", "converged searches"], rows)


@dataclass(frozen=True)
class Pair:
    """The searches of a part of C8, by another protocol than the published one.

    Those of the transformer may have ended at a size limit.
    """

    part: Part
    changed: str
    mlp: pd.DataFrame
    transformer: pd.DataFrame

    @property
    def ratio(self) -> str:
        """The MLP's geometric mean over the transformer's; at most that, if there was a limit."""
        sizes = [own["first_failure"].to_numpy(float) for own in (self.transformer, self.mlp)]
        is_mlp = np.repeat([0.0, 1.0], [len(own) for own in sizes])
        effect = slope(is_mlp, np.log(np.concatenate(sizes)), np.zeros(len(is_mlp)))
        value, *ends = np.exp([effect.value, effect.low, effect.high])
        if self.transformer["capped"].any():
            return f"at most {number(value)}"
        return f"{number(value)}{interval_text(*ends)}"


def pairs() -> Iterator[Pair]:
    """Yield every part of C8 at published sizes with every protocol that it was searched by."""
    every = current_searches()
    for part in _claim().parts:
        of_cells = [_matching(every, cell.where) for cell in part.cells]
        for changed, label_of in CHANGED.items():
            mlp, transformer = (
                searched_with(own, label_of(spec))
                for own, spec in zip(of_cells, (MLP, TRANSFORMER), strict=True)
            )
            if len(mlp) and len(transformer) and not mlp["capped"].any():
                yield Pair(part, changed, mlp, transformer)


def sizes_table() -> str:
    """C8 at published sizes: one hidden layer against transformers, by all these protocols."""
    ours, theirs, claim = rows_of(select(current_searches())), rows_of(published()), _claim()
    rows = []
    for pair in pairs():
        now = find(claim, pair.part, ours, theirs)
        rows.append(
            [
                pair.part.name,
                published_text(claim, now),
                effect_text(claim, now),
                pair.changed,
                *(_mean_and_bits(own) for own in (pair.mlp, pair.transformer)),
                pair.ratio,
            ]
        )
    if not rows:
        return "Not measured yet.\n"
    headings = ["part", "published ratio", "ours, published protocol (95 % interval)"]
    headings.append("changed in both")
    headings += [f"{name}: mean (searches), bits per parameter" for name in ("mlp", "transformer")]
    return markdown([*headings, "ratio of geometric means (95 % interval)"], rows)


def _claim() -> Claim:
    (claim,) = (c for c in every_claim(rows_of(published())) if c.label == SIZES)
    return claim


def _mean_and_bits(own: pd.DataFrame) -> str:
    mean, _ = numbers(own)
    bits = float(bits_per_parameter(own["threshold"].astype(float), own).mean())
    return f"{mean}, {'at least ' if own['capped'].any() else ''}{number(bits)}"


def _label(spec: ModelSpec, name: str = "paper", **changes: float) -> str:
    """Return what the protocol column says of a named protocol with changes."""
    return spec.protocol(name, **changes).label(spec.protocol())


def _matching(table: pd.DataFrame, where: Mapping[str, object]) -> pd.DataFrame:
    """Return the rows of a table that have the values in ``where``."""
    is_there = [bool(matching([row], where)) for row in rows_of(table)]
    return table[is_there]


PROTOCOL_TABLES: Mapping[str, Callable[[], str]] = {
    "converged": converged_table,
    "other-protocols": sizes_table,
}
