"""The tables of verdicts and tests in docs/replication.md. study/pages.py writes them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

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
    Finding,
    assess,
)
from study.claims import Claim
from threshold_search.log.results_folder import DEFAULT_FOLDER
from transformer_experiments.transformer_utils import SPEC as TRANSFORMER
from visualizations.markdown import interval_text, markdown, number
from visualizations.results import load_results

NAMED = 3  # parts in a remark; of more, their number

FEW = "the least p that so few searches can give, corrected for all claims, is above 0.05"
NOT_CONVERGED = "at 10,000, where longer training was tried, an artefact of the protocol"
NOT_WITHOUT_RULES = (
    "beside d = 64, 32 heads, without early stop and dropout, an artefact of the protocol"
)
# What is to be said of a claim whatever its verdict, because searches by another protocol say it.
REMARKS: Mapping[tuple[str, str], str] = {
    ("C1", MLP.name): NOT_CONVERGED,
    ("C2 collapse", MLP.name): NOT_CONVERGED,
    ("C8 published sizes", TRANSFORMER.name): NOT_WITHOUT_RULES,
}
SAME_NETWORK = "the threshold without a hidden layer is the same at every budget"
BY_CONSTRUCTION = "true by construction"


@functools.cache
def _assessed(folder: Path = DEFAULT_FOLDER) -> list[Assessment]:
    return assess(load_results(folder))


def verdicts_table(results_dir: Path | str = DEFAULT_FOLDER) -> str:
    """Every claim: its weakest part, ours and published, p-values and the verdict."""
    rows = [_verdict_row(assessed) for assessed in _assessed(Path(results_dir))]
    at = next(i for i, row in enumerate(rows) if str(row[0]).startswith("C4"))
    rows.insert(at, ["C3", MLP.name, SAME_NETWORK, *["-"] * 6, f"{BY_CONSTRUCTION}: one network"])
    headings = ["claim", "model", "what is claimed", "weakest part", "ours (95 % interval)"]
    tests = ["p, Holm", "p of the opposite, Holm"]
    return markdown([*headings, "published", "searches", *tests, "verdict"], rows)


def in_short() -> str:
    """The claims by verdict, as a list; of those that do not hold how many parts are as claimed."""
    lines = []
    for verdict in (HOLDS, IN_PART, FAILS, UNDECIDED, OPEN):
        texts = [f"    - {_in_words(a)}" for a in _assessed() if a.verdict == verdict]
        lines += [f"- **{verdict.capitalize()}**", *texts] if texts else []
    lines += [f"- **{BY_CONSTRUCTION.capitalize()}**", f"    - C3 ({MLP.name}): {SAME_NETWORK}"]
    return "".join(f"{line}\n" for line in lines)


def _in_words(assessed: Assessment) -> str:
    claim = assessed.claim
    text = f"{claim.label} ({claim.model}): {claim.statement}"
    remark = REMARKS.get((claim.label, claim.model), "")
    remark = f"; {remark}" if remark else ""
    if assessed.verdict == HOLDS:
        return text + remark
    known = sum(not math.isnan(finding.effect.value) for finding in assessed.findings)
    lacking = len(assessed.findings) - known
    without = f", {lacking} without data" if lacking else ""
    return (
        f"{text} (as claimed in {len(assessed.as_claimed)} of {known} comparisons{without}){remark}"
    )


def parts_table(*labels: str) -> str:
    """Every part of the claims of one or more labels that have the same parts, p for each."""
    groups = [[a for a in _assessed() if a.claim.label == label] for label in labels]
    rows = []
    for same in zip(*groups, strict=True):
        claim = same[0].claim
        for findings in zip(*(a.findings for a in same), strict=True):
            first = findings[0]
            rows.append(
                [
                    claim.model,
                    first.part.name,
                    published_text(claim, first),
                    effect_text(claim, first),
                    *([number(first.somers_d)] if claim.trend else []),
                    sum(first.counts),
                    *(_both_p(finding) for finding in findings),
                    _orders(claim, first),
                ]
            )
    claim = groups[0][0].claim
    d = ["Somers' D"] if claim.trend else []
    p = ["p"] if len(labels) == 1 else [f"p, {label}" for label in labels]
    ours = f"ours: {claim.effect} (95 % interval)"
    return markdown(
        ["model", "part", "published", ours, *d, "searches", *p, "orders (least p)"], rows
    )


def effect_text(claim: Claim, finding: Finding) -> str:
    """Return our effect and its interval in the claim's unit, or that there is none yet."""
    if math.isnan(finding.effect.value):
        return "too few searches" if any(finding.counts) else "not measured"
    ends = (_unit(claim, finding.effect.low), _unit(claim, finding.effect.high))
    missing = "" if all(finding.counts) else ", of a part of the configurations"
    return f"{number(_unit(claim, finding.effect.value))}{interval_text(*ends)}{missing}"


def p_text(p: float) -> str:
    """Return a p-value in two significant digits, "not testable yet" for NaN."""
    if math.isnan(p):
        return "not testable yet"
    return "< 0.0001" if p < 1e-4 else f"{p:.2g}"


def _both_p(finding: Finding) -> str:
    """Return p, and that of the opposite where the effect is on its side of the bound."""
    text = p_text(finding.p)
    return f"{text}; opposite {p_text(finding.p_against)}" if finding.p > 0.5 else text


def _orders(claim: Claim, finding: Finding) -> str:
    """Return how many orders the permutation test has, and the least p that they allow."""
    if math.isnan(finding.p):
        return "-"
    if claim.jonckheere:
        return "normal approximation"
    count = "random" if finding.orders is None else f"all {finding.orders:,}"
    return f"{count} ({p_text(finding.least_p)})"


def reason(assessed: Assessment) -> str:
    """Return which parts the verdict rests on, if it is another than that the claim holds."""
    findings, verdict = assessed.findings, assessed.verdict
    if verdict == OPEN:
        lacking = [finding for finding in findings if finding.lacking]
        return f"fewer than {LEAST_REPEATS} searches of a configuration in {_names(lacking)}"
    notes = []
    if verdict != HOLDS and assessed.supporting:
        notes.append(f"holds for {_names(assessed.supporting)}")
    if verdict in (UNDECIDED, IN_PART) and assessed.least_p_holm >= LEVEL:
        notes.append(FEW)
    if assessed.contradicting:
        notes.append(f"contradicted for {_names(assessed.contradicting)}")
    return "; ".join(notes)


def _names(findings: Sequence[Finding]) -> str:
    if len(findings) <= NAMED:
        return ", ".join(finding.part.name for finding in findings)
    return f"{len(findings)} parts"


def _verdict_row(assessed: Assessment) -> list[object]:
    claim, weakest = assessed.claim, assessed.weakest
    notes = [reason(assessed), REMARKS.get((claim.label, claim.model), "")]
    both = (assessed.p_holm, assessed.p_against_holm)
    said = "; ".join(note for note in notes if note)
    return [
        claim.label,
        claim.model,
        claim.statement,
        weakest.part.name,
        effect_text(claim, weakest),
        published_text(claim, weakest),
        assessed.searches,
        *("-" if assessed.verdict == OPEN else p_text(p) for p in both),
        assessed.verdict + (f": {said}" if said else ""),
    ]


def published_text(claim: Claim, finding: Finding) -> str:
    """Return the effect and Somers' D of the published means, as far as there are such."""
    texts = []
    if claim.quantity == "log":
        texts.append(number(_unit(claim, finding.published_effect)))
    if claim.trend and not math.isnan(finding.published_d):
        texts.append(f"D {number(finding.published_d)}")
    return ", ".join(texts) or "-"


def _unit(claim: Claim, value: float) -> float:
    return math.exp(value) if claim.quantity == "log" else value


_PARTS: Mapping[str, Sequence[str]] = {
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

CLAIM_TABLES: Mapping[str, Callable[[], str]] = {
    "verdicts": verdicts_table,
    "in-short": in_short,
    **{name: functools.partial(parts_table, *labels) for name, labels in _PARTS.items()},
}
