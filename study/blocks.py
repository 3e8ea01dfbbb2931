"""The tests of docs/replication.md again, with the searches of one repeat as one observation.

Searches of one repeat may go up and down together. The effect in each repeat alone, and Student's t
over the repeats, suppose nothing about that: only repeats have to be independent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from study.assessment import Assessment, assess, matching, rows_of
from study.claim_tables import p_text
from study.claims import Part, Row
from study.effects import Array, mean_test, slope
from visualizations.markdown import markdown
from visualizations.results import load_results, select


def block_effects(part: Part, ours: Sequence[Row]) -> Array:
    """Return the effect, in log units, in each repeat that has a search of every cell."""
    found = [
        {(row["seed"], row["repeat"]): float(row["first_failure"]) for row in rows}
        for rows in (matching(ours, cell.where) for cell in part.cells)
    ]
    x = np.array([cell.x for cell in part.cells])
    strata = np.array([cell.stratum for cell in part.cells])
    sizes = [[own[block] for own in found] for block in sorted(set.intersection(*map(set, found)))]
    effects = [slope(x, np.log(of_block), strata, with_interval=False) for of_block in sizes]
    return np.array([effect.value for effect in effects])


def blocked_table() -> str:
    """Both p-values, not adjusted, of every claim about logarithms that is not open."""
    searches = select(load_results())
    ours = rows_of(searches)
    rows = [
        _row(assessed, [block_effects(part, ours) for part in assessed.claim.parts])
        for assessed in assess(searches)
        if assessed.claim.quantity == "log" and not any(f.lacking for f in assessed.findings)
    ]
    p = ["p, searches independent", "p, repeats independent"]
    opposite = ["p of the opposite, searches", "p of the opposite, repeats"]
    return markdown(["claim", "model", "repeats", *p, *opposite], rows)


def _row(assessed: Assessment, effects: Sequence[Array]) -> list[object]:
    claim = assessed.claim
    findings = []
    for finding, values in zip(assessed.findings, effects, strict=True):
        test = mean_test(values, claim.edge)
        p, against = (test.greater, test.less)[:: 1 if claim.side == "greater" else -1]
        findings.append(replace(finding, p=p, p_against=against))
    blocked = replace(assessed, findings=tuple(findings))
    both = (assessed.p, blocked.p, assessed.p_against, blocked.p_against)
    return [claim.label, claim.model, min(map(len, effects)), *map(p_text, both)]


BLOCK_TABLES: Mapping[str, Callable[[], str]] = {"blocked": blocked_table}
