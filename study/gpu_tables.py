"""The searches on a GPU (h100/ of a folder) beside those of the compiled engine: two tables.

They are counted apart, so no verdict rests on them: masks and rounding are others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from study.assessment import LEAST_REPEATS, evidence_of
from study.claims import Part, every_claim, where_of
from study.comparison import Row, matching, name_of, published, rows_of
from study.effects import slope
from study.folder import StudyFolder
from transformer_experiments.transformer_utils import SPEC as TRANSFORMER
from visualizations.markdown import markdown, mean_text, p_text
from visualizations.results import select

GPU_PROTOCOL = "paper device=cuda"
CLAIMS = ("C4", "C5 cost", "C5 gain")


def on_gpu(folder: StudyFolder) -> Sequence[Row]:
    """Return the finished searches on the GPU."""
    return rows_of(select(folder.inside("h100").searches, GPU_PROTOCOL))


def limited(part: Part, ours: Sequence[Row]) -> Part:
    """Return the part without the cells that lack searches and the strata of one place."""
    cells = [cell for cell in part.cells if len(matching(ours, cell.where)) >= LEAST_REPEATS]
    places = defaultdict(set)
    for cell in cells:
        places[cell.stratum].add(cell.x)
    return replace(part, cells=tuple(c for c in cells if len(places[c.stratum]) > 1))


def machines_table(folder: StudyFolder) -> str:
    """Every published row with searches on the GPU: both machines' and the published mean."""
    gpu = on_gpu(folder)
    values, devices, strata = [], [], []
    rows: list[list[str]] = []
    for row in rows_of(published()):
        both = [
            np.array([float(r["first_failure"]) for r in matching(searches, where_of(row))])
            for searches in (folder.rows, gpu)
        ]
        if not both[1].size:
            continue
        for device, sizes in enumerate(both):
            values.append(np.log(sizes))
            devices += [float(device)] * len(sizes)
            strata += [len(rows)] * len(sizes)
        rows.append([name_of(row), *map(_mean, both), f"{row['published_mean']:g}"])
    if rows:
        ratio = slope(np.array(devices), np.concatenate(values), np.array(strata))
        name = "GPU / compiled engine, within configurations"
        rows.append([name, "-", ratio.factor.text, "-"])
    ours = ["compiled engine, mean ± std (searches)", "GPU, mean ± std (searches)"]
    return markdown(["configuration", *ours, "published mean"], rows)


def _mean(sizes: np.ndarray) -> str:
    if not len(sizes):
        return "not measured"
    return mean_text(sizes.mean(), pd.Series(sizes).std(), len(sizes))


def effects_table(folder: StudyFolder) -> str:
    """The tests of C4 and C5 on the GPU's searches alone, not adjusted for many claims."""
    ours, theirs, rows = on_gpu(folder), rows_of(published()), []
    for claim in every_claim(theirs):
        if claim.model != TRANSFORMER.name or claim.label not in CLAIMS:
            continue
        for part in (limited(part, ours) for part in claim.parts):
            if part.cells:
                e = evidence_of(claim, part, ours, theirs)
                said = [f"{claim.label}: {claim.statement}", part.name, e.published_text]
                rows.append([*said, e.effect_text, sum(e.counts), *map(p_text, (e.p, e.p_against))])
    headings = ["claim", "part", "published, same rows", "GPU: effect (95 % interval)"]
    return markdown([*headings, "searches", "p", "p of the opposite"], rows)
