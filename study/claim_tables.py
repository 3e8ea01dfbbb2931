"""The tables of verdicts and tests in docs/replication.md. study/pages.py writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mlp_experiments.mlp_utils import SPEC as MLP
from study.assessment import (
    FAILS,
    HOLDS,
    IN_PART,
    LEAST_REPEATS,
    LEVEL,
    OPEN,
    UNDECIDED,
    Assessment,
    Evidence,
)
from study.folder import StudyFolder
from study.other_protocols import due_to_the_protocol
from visualizations.markdown import markdown, number, p_text

NAMED = 3  # parts in a remark; of more, their number

FEW = "the least p that so few searches can give, corrected for all claims, is above 0.05"
SAME_NETWORK = "the threshold without a hidden layer is the same at every budget"
BY_CONSTRUCTION = "true by construction"


def verdicts_table(folder: StudyFolder) -> str:
    """Every claim: its weakest part, ours and published, p-values and the verdict."""
    rows = [_verdict_row(assessed, folder) for assessed in folder.assessed]
    at = next(i for i, row in enumerate(rows) if str(row[0]).startswith("C4"))
    rows.insert(at, ["C3", MLP.name, SAME_NETWORK, *["-"] * 6, f"{BY_CONSTRUCTION}: one network"])
    headings = ["claim", "model", "what is claimed", "weakest part", "ours (95 % interval)"]
    tests = ["p, Holm", "p of the opposite, Holm"]
    return markdown([*headings, "published", "searches", *tests, "verdict"], rows)


def in_short(folder: StudyFolder) -> str:
    """The claims by verdict, as a list; of those that do not hold how many parts are as claimed."""
    lines = []
    for verdict in (HOLDS, IN_PART, FAILS, UNDECIDED, OPEN):
        texts = [f"    - {_in_words(a, folder)}" for a in folder.assessed if a.verdict == verdict]
        lines += [f"- **{verdict.capitalize()}**", *texts] if texts else []
    lines += [f"- **{BY_CONSTRUCTION.capitalize()}**", f"    - C3 ({MLP.name}): {SAME_NETWORK}"]
    return "".join(f"{line}\n" for line in lines)


def _in_words(assessed: Assessment, folder: StudyFolder) -> str:
    claim = assessed.claim
    text = f"{claim.label} ({claim.model}): {claim.statement}"
    remark = f"; {words}" if (words := due_to_the_protocol(claim, folder)) else ""
    if assessed.verdict == HOLDS:
        return text + remark
    known = sum(not math.isnan(e.effect.value) for e in assessed.evidence)
    lacking = len(assessed.evidence) - known
    without = f", {lacking} without data" if lacking else ""
    return (
        f"{text} (as claimed in {len(assessed.as_claimed)} of {known} comparisons{without}){remark}"
    )


def parts_table(folder: StudyFolder, labels: Sequence[str]) -> str:
    """Every part of the claims of one or more labels that have the same parts, p for each."""
    groups = [[a for a in folder.assessed if a.claim.label == label] for label in labels]
    rows = []
    for same in zip(*groups, strict=True):
        claim = same[0].claim
        for parts in zip(*(a.evidence for a in same), strict=True):
            first = parts[0]
            rows.append(
                [
                    claim.model,
                    first.part.name,
                    first.published_text,
                    first.effect_text,
                    *([number(first.somers_d)] if claim.trend else []),
                    sum(first.counts),
                    *map(_both_p, parts),
                    _orders(first),
                ]
            )
    claim = groups[0][0].claim
    d = ["Somers' D"] if claim.trend else []
    p = ["p"] if len(labels) == 1 else [f"p, {label}" for label in labels]
    ours = f"ours: {claim.effect} (95 % interval)"
    return markdown(
        ["model", "part", "published", ours, *d, "searches", *p, "orders (least p)"], rows
    )


def _both_p(e: Evidence) -> str:
    """Return p, and that of the opposite where the effect is on its side of the bound."""
    text = p_text(e.p)
    return f"{text}; opposite {p_text(e.p_against)}" if e.p > 0.5 else text


def _orders(e: Evidence) -> str:
    """Return how many orders the permutation test has, and the least p that they allow."""
    if math.isnan(e.p):
        return "-"
    if e.claim.jonckheere:
        return "normal approximation"
    count = "random" if e.orders is None else f"all {e.orders:,}"
    return f"{count} ({p_text(e.least_p)})"


def reason(assessed: Assessment) -> str:
    """Return which parts the verdict rests on, if it is another than that the claim holds."""
    evidence, verdict = assessed.evidence, assessed.verdict
    if verdict == OPEN:
        lacking = [e for e in evidence if e.lacking]
        return f"fewer than {LEAST_REPEATS} searches of a configuration in {_names(lacking)}"
    notes = []
    if verdict != HOLDS and assessed.supporting:
        notes.append(f"holds for {_names(assessed.supporting)}")
    if verdict in (UNDECIDED, IN_PART) and assessed.least_p_holm >= LEVEL:
        notes.append(FEW)
    if assessed.contradicting:
        notes.append(f"contradicted for {_names(assessed.contradicting)}")
    return "; ".join(notes)


def _names(evidence: Sequence[Evidence]) -> str:
    if len(evidence) <= NAMED:
        return ", ".join(e.part.name for e in evidence)
    return f"{len(evidence)} parts"


def _verdict_row(assessed: Assessment, folder: StudyFolder) -> list[object]:
    claim, weakest = assessed.claim, assessed.weakest
    notes = [reason(assessed), due_to_the_protocol(claim, folder)]
    both = (assessed.p_holm, assessed.p_against_holm)
    said = "; ".join(note for note in notes if note)
    return [
        claim.label,
        claim.model,
        claim.statement,
        weakest.part.name,
        weakest.effect_text,
        weakest.published_text,
        assessed.searches,
        *("-" if assessed.verdict == OPEN else p_text(p) for p in both),
        assessed.verdict + (f": {said}" if said else ""),
    ]


# The tables of parts, each of the claims of these labels.
PARTS: Mapping[str, Sequence[str]] = {
    "c1": ["C1"],
    "c2-trend": ["C2 trend"],
    "c2-collapse": ["C2 collapse"],
    "c4": ["C4"],
    "c5": ["C5 cost", "C5 gain"],
    "c6": ["C6"],
    "c7-logarithms": ["C7 logarithms"],
    "c7-sequences": ["C7 sequences"],
    "c8-published-sizes": ["C8 published sizes"],
    "c8-equal-parameters": ["C8 equal parameters"],
}
