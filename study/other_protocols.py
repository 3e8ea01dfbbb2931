"""The claims C1, C2 and C8 among searches by other protocols, for docs/replication.md.

What of a verdict is due to the protocol follows from them: a claim is an artefact of it where
another protocol contradicts a part.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mlp_experiments.mlp_utils import SPEC as MLP
from study.ablations import numbers, searched_with
from study.assessment import Evidence, evidence_of
from study.claims import FAR_MORE, Claim, Part, every_claim
from study.comparison import label_of, matching, published, rows_of
from study.effects import Effect, slope
from study.folder import StudyFolder
from training.spec import ModelSpec
from transformer_experiments.transformer_utils import SPEC as TRANSFORMER
from visualizations.markdown import markdown, number
from visualizations.summary import bits_per_parameter

SIZES = "C8 published sizes"
ARTEFACT = "an artefact of the protocol"
# What is changed of a model's published protocol, for C8; the MLPs' has no dropout.
CHANGED: Mapping[str, Callable[[ModelSpec], str]] = {
    "`--patience 0 --dropout 0`": lambda spec: label_of(spec, patience=0, dropout=0.0),
    "`--protocol converged`": lambda spec: label_of(spec, "converged"),
}
WORDS = dict(zip(CHANGED, ("without early stop and dropout", "with longer training"), strict=True))


@functools.lru_cache(maxsize=1)  # three tables need it
def converged_evidence(folder: StudyFolder) -> Sequence[tuple[Evidence, Evidence]]:
    """Return every part of C1 and C2 that was searched by `converged`: by the published one, by it.

    Searches without a hidden layer may be in the folder's depth0/.
    """
    every = pd.concat([folder.searches, folder.inside("depth0").searches])
    theirs = rows_of(published())
    converged = rows_of(every[every["protocol"] == label_of(MLP, "converged")])
    found = []
    for claim in every_claim(theirs):
        if claim.label.startswith(("C1", "C2")):
            for part in claim.parts:
                then = evidence_of(claim, part, converged, theirs)
                if min(then.counts):
                    found.append((evidence_of(claim, part, folder.rows, theirs), then))
    return found


def converged_table(folder: StudyFolder) -> str:
    """C1 and C2 at the budgets that were searched by `converged`, beside the published protocol."""
    rows = [
        [
            now.claim.label,
            now.part.name,
            now.published_text,
            now.effect_text,
            then.effect_text,
            sum(then.counts),
        ]
        for now, then in converged_evidence(folder)
    ]
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
    def ratio(self) -> Effect:
        """The MLP's geometric mean over the transformer's; at most that, if there was a limit."""
        sizes = [own["first_failure"].to_numpy(float) for own in (self.transformer, self.mlp)]
        is_mlp = np.repeat([0.0, 1.0], [len(own) for own in sizes])
        effect = slope(is_mlp, np.log(np.concatenate(sizes)), np.zeros(len(is_mlp)))
        return Effect(effect.factor.value) if self.is_bound else effect.factor

    @property
    def is_bound(self) -> bool:
        """Whether a search of the transformer ended at a limit."""
        return bool(self.transformer["capped"].any())

    @property
    def is_below_claim(self) -> bool:
        """Whether the ratio is below what C8 claims, its interval included."""
        return (self.ratio.value if self.is_bound else self.ratio.high) < FAR_MORE

    @property
    def texts(self) -> list[str]:
        """Both means with their bits per parameter, and the ratio."""
        ratio = f"at most {self.ratio.text}" if self.is_bound else self.ratio.text
        return [*map(_mean_and_bits, (self.mlp, self.transformer)), ratio]


def pairs(claim: Claim, folder: StudyFolder) -> Iterator[Pair]:
    """Yield every part of C8 at published sizes with every protocol that it was searched by."""
    rows = rows_of(folder.searches)
    for part in claim.parts:
        of_cells = [
            folder.searches.loc[np.array([bool(matching([row], cell.where)) for row in rows], bool)]
            for cell in part.cells
        ]
        for changed, of_model in CHANGED.items():
            mlp, transformer = (
                searched_with(own, of_model(spec))
                for own, spec in zip(of_cells, (MLP, TRANSFORMER), strict=True)
            )
            if len(mlp) and len(transformer) and not mlp["capped"].any():
                yield Pair(part, changed, mlp, transformer)


def sizes_table(folder: StudyFolder) -> str:
    """C8 at published sizes: one hidden layer against transformers, by all these protocols."""
    theirs = rows_of(published())
    (claim,) = (c for c in every_claim(theirs) if c.label == SIZES)
    rows = []
    for pair in pairs(claim, folder):
        now = evidence_of(claim, pair.part, folder.rows, theirs)
        known = [pair.part.name, now.published_text, now.effect_text]
        rows.append([*known, pair.changed, *pair.texts])
    headings = ["part", "published ratio", "ours, published protocol (95 % interval)"]
    headings.append("changed in both")
    headings += [f"{name}: mean (searches), bits per parameter" for name in ("mlp", "transformer")]
    return markdown([*headings, "ratio of geometric means (95 % interval)"], rows)


def due_to_the_protocol(claim: Claim, folder: StudyFolder) -> str:
    """Return what other protocols make of a claim under the published one, "" for nothing."""
    if claim.label == SIZES:
        texts = [
            f"beside {pair.part.name.partition(' / ')[2]}, {WORDS[pair.changed]}"
            for pair in pairs(claim, folder)
            if pair.is_below_claim
        ]
    else:
        against = [
            then.part.name.partition(":")[0]
            for _, then in converged_evidence(folder)
            if then.claim.label == claim.label and then.is_against
        ]
        texts = [f"at {name}, where longer training was tried" for name in dict.fromkeys(against)]
    return f"{'; '.join(texts)}, {ARTEFACT}" if texts else ""


def _mean_and_bits(own: pd.DataFrame) -> str:
    mean, _ = numbers(own)
    bits = float(bits_per_parameter(own["threshold"].astype(float), own).mean())
    return f"{mean}, {'at least ' if own['capped'].any() else ''}{number(bits)}"
