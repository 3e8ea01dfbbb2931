"""The claims C1, C2 and C8 among searches by the protocol `converged`, for docs/replication.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlp_experiments.mlp_utils import SPEC as MLP
from threshold_search.results_folder import DEFAULT_FOLDER
from training.spec import ModelSpec
from transformer_experiments.transformer_utils import SPEC as TRANSFORMER
from visualizations.ablations import current_searches, numbers, searched_with
from visualizations.assessment import find, matching, rows_of
from visualizations.claim_tables import effect_text, published_text
from visualizations.claims import Part, every_claim
from visualizations.comparison import published
from visualizations.markdown import markdown, number
from visualizations.results import select

DEPTH_0 = DEFAULT_FOLDER / "depth0"
SIZES = "C8 published sizes"


def converged_table() -> str:
    """C1 and C2 at the budgets that were searched by `converged`, beside the published protocol."""
    every = pd.concat([current_searches(), current_searches(DEPTH_0)])
    ours, theirs = rows_of(select(every)), rows_of(published())
    converged = rows_of(every[every["protocol"] == _label(MLP)])
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
    """A part of C8 whose MLP and transformer were both searched by `converged`.

    The searches of both, by `converged`; those of the transformer may have ended at a size limit.
    """

    part: Part
    mlp: pd.DataFrame
    transformer: pd.DataFrame

    @property
    def ratio(self) -> float:
        """The MLP's geometric mean over the transformer's; at most that, if there was a limit."""
        logs = [np.log(own["first_failure"].astype(float)) for own in (self.mlp, self.transformer)]
        return float(np.exp(logs[0].mean() - logs[1].mean()))

    @property
    def is_limited(self) -> bool:
        """Whether a search of the transformer ended at its size limit."""
        return bool(self.transformer["capped"].any())


def pairs() -> Iterator[Pair]:
    """Yield every part of C8 at published sizes that was searched by `converged`."""
    every = current_searches()
    (claim,) = (c for c in every_claim(rows_of(published())) if c.label == SIZES)
    for part in claim.parts:
        found = []
        for cell, spec in zip(part.cells, (MLP, TRANSFORMER), strict=True):
            found.append(searched_with(_matching(every, cell.where), _label(spec)))
        if all(map(len, found)):
            yield Pair(part, *found)


def sizes_table() -> str:
    """C8 at published sizes: one hidden layer against transformers, by both protocols."""
    theirs = rows_of(published())
    ours = rows_of(select(current_searches()))
    (claim,) = (c for c in every_claim(theirs) if c.label == SIZES)
    rows = []
    for pair in pairs():
        now = find(claim, pair.part, ours, theirs)
        at_most = "at most " if pair.is_limited else ""
        rows.append(
            [
                pair.part.name,
                published_text(claim, now),
                effect_text(claim, now),
                numbers(pair.mlp)[0],
                numbers(pair.transformer)[0],
                f"{at_most}{number(pair.ratio)}",
            ]
        )
    if not rows:
        return "Not measured yet.\n"
    headings = ["part", "published ratio", "ours, published protocol (95 % interval)"]
    return markdown([*headings, "mlp, converged", "transformer, converged", "ratio"], rows)


def _label(spec: ModelSpec) -> str:
    return spec.protocol("converged").label(spec.protocol())


def _matching(table: pd.DataFrame, where: Mapping[str, object]) -> pd.DataFrame:
    """Return the rows of a table that have the values in ``where``."""
    is_there = [bool(matching([row], where)) for row in rows_of(table)]
    return table[is_there]


CONVERGED_TABLES: Mapping[str, Callable[[], str]] = {
    "converged": converged_table,
    "converged-sizes": sizes_table,
}
