"""The searches on a GPU (results/h100) beside those of the compiled engine, in docs/replication.md.

They are counted apart, so no verdict rests on them: masks and rounding are others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from study.assessment import LEAST_REPEATS, Finding, find, matching, rows_of
from study.claim_tables import effect_text, p_text, published_text
from study.claims import Claim, Part, Row, every_claim, heads_text, where_of
from study.comparison import published
from study.effects import slope
from threshold_search.log.results_folder import DEFAULT_FOLDER
from transformer_experiments.transformer_utils import SPEC as TRANSFORMER
from visualizations.markdown import interval_text, markdown, number
from visualizations.results import load_results, select

GPU = DEFAULT_FOLDER / "h100"
GPU_PROTOCOL = "paper device=cuda"
CLAIMS = ("C4", "C5 cost", "C5 gain")


def on_gpu() -> Sequence[Row]:
    """Return the finished searches on the GPU."""
    return rows_of(select(load_results(GPU), GPU_PROTOCOL))


def limited(part: Part, ours: Sequence[Row]) -> Part:
    """Return the part without the cells that lack searches and the strata of one place."""
    cells = [cell for cell in part.cells if len(matching(ours, cell.where)) >= LEAST_REPEATS]
    places = defaultdict(set)
    for cell in cells:
        places[cell.stratum].add(cell.x)
    return replace(part, cells=tuple(c for c in cells if len(places[c.stratum]) > 1))


def findings() -> list[tuple[Claim, Finding]]:
    """Return what the GPU's searches alone say of the parts that they have configurations of."""
    ours, theirs = on_gpu(), rows_of(published())
    found = []
    for claim in every_claim(theirs):
        if claim.model != TRANSFORMER.name or claim.label not in CLAIMS:
            continue
        for part in (limited(part, ours) for part in claim.parts):
            if part.cells:
                found.append((claim, find(claim, part, ours, theirs)))
    return found


def rows_table() -> str:
    """Every published row with searches on the GPU: both machines' and the published mean."""
    cpu, gpu = rows_of(select(load_results())), on_gpu()
    values, devices, strata = [], [], []
    rows: list[list[str]] = []
    for row in rows_of(published()):
        both = [
            np.array([float(r["first_failure"]) for r in matching(searches, where_of(row))])
            for searches in (cpu, gpu)
        ]
        if not both[1].size:
            continue
        for device, sizes in enumerate(both):
            values.append(np.log(sizes))
            devices += [float(device)] * len(sizes)
            strata += [len(rows)] * len(sizes)
        name = f"{row['model']} {row['hidden_size']} x {row['num_layers']}, {heads_text(row)}"
        rows.append([name, *map(_mean, both), f"{row['published_mean']:g}"])
    if not rows:
        return "Not measured yet.\n"
    ratio = slope(np.array(devices), np.concatenate(values), np.array(strata))
    value, *ends = np.exp([ratio.value, ratio.low, ratio.high])
    text = f"{number(value)}{interval_text(*ends)}"
    rows.append(["GPU / compiled engine, within configurations", "-", text, "-"])
    ours = ["compiled engine, mean ± std (searches)", "GPU, mean ± std (searches)"]
    return markdown(["configuration", *ours, "published mean"], rows)


def _mean(sizes: np.ndarray) -> str:
    if len(sizes) < LEAST_REPEATS:
        return f"{sizes.mean():,.0f} (1)" if len(sizes) else "not measured"
    return f"{sizes.mean():,.0f} ± {sizes.std(ddof=1):,.0f} ({len(sizes)})"


def effects_table() -> str:
    """The tests of C4 and C5 on the GPU's searches alone, not adjusted for many claims."""
    rows = [
        [
            f"{claim.label}: {claim.statement}",
            finding.part.name,
            published_text(claim, finding),
            effect_text(claim, finding),
            sum(finding.counts),
            p_text(finding.p),
            p_text(finding.p_against),
        ]
        for claim, finding in findings()
    ]
    headings = ["claim", "part", "published, same rows", "GPU: effect (95 % interval)"]
    return markdown([*headings, "searches", "p", "p of the opposite"], rows)


GPU_TABLES: Mapping[str, Callable[[], str]] = {
    "gpu-rows": rows_table,
    "gpu-effects": effects_table,
}
