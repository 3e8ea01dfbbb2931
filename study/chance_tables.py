"""The tables of docs/replication.md about chance: repeats, re-seeding, bad luck."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from mlp_experiments.mlp_utils import SPEC as MLP
from study.assessment import LEAST_REPEATS, Assessment
from study.claims import DEPTHS, Part, where_of
from study.comparison import Row, matching, name_of, published, rows_of
from study.effects import Array, block_correlation, mean_test, median_ratio, slope
from study.folder import StudyFolder
from visualizations.markdown import interval_text, markdown, mean_text, number, p_text
from visualizations.results import configuration_columns
from visualizations.success import success_rates

# Published first failing sizes that a search asks for early, most of them multiples of 32, with
# neighbours: model, width, layers, heads, size as published, sizes.
UNLUCKY = (
    ("mlp", 0, 0, None, 224, (224,)),
    ("mlp", 41, 2, None, 416, (415, 416, 417)),
    ("mlp", 149, 1, None, 1728, (1727, 1728)),
    ("mlp", 447, 1, None, 3648, (3647, 3648)),
    ("transformer", 64, 1, 16, 31, (31,)),
)


def medians_table(folder: StudyFolder) -> str:
    """C2: medians of deeper MLPs over that of one hidden layer, ours and published."""
    rows = []
    mlps = [row for row in rows_of(published()) if row["model"] == MLP.name]
    for budget in dict.fromkeys(row["budget"] for row in mlps):
        of_depth = {row["num_layers"]: row for row in mlps if row["budget"] == budget}
        sizes = {
            depth: np.array([r["first_failure"] for r in matching(folder.rows, where_of(row))])
            for depth, row in of_depth.items()
        }
        for depth in DEPTHS[1:]:
            theirs = of_depth[depth]["published_median"] / of_depth[1]["published_median"]
            above, below = sizes[depth], sizes[1]
            is_enough = min(len(above), len(below)) >= LEAST_REPEATS
            text = median_ratio(above, below).text if is_enough else "not measured"
            part = f"{budget:,}: {depth} layers / 1"
            rows.append([part, number(theirs), text, len(above) + len(below)])
    ours = "ours: ratio of medians (95 % interval, bootstrap)"
    return markdown(["part", "published", ours, "searches"], rows)


def independence_table(folder: StudyFolder) -> str:
    """How the searches of one repeat go together over the configurations of a model."""
    rows = []
    for model in dict.fromkeys(folder.paper["model"]):
        own = folder.paper[folder.paper["model"] == model]
        sizes = [name for name in configuration_columns(own) if name != "budget"]
        own = own.drop_duplicates([*sizes, "seed", "repeat"])
        logs = np.log(own["first_failure"].astype("float64"))
        configurations = own.groupby(sizes, dropna=False).ngroup()
        table = logs.groupby([configurations, own["seed"], own["repeat"]]).first().unstack([1, 2])
        table = table.dropna(thresh=LEAST_REPEATS).dropna(axis=1)
        r, p = block_correlation(table.to_numpy())
        rows.append([model, *table.shape, number(r), p_text(p)])
    headings = ["model", "configurations", "repeats", "mean correlation", "p"]
    return markdown(headings, rows)


def block_effects(part: Part, ours: Sequence[Row]) -> Array:
    """Return the effect, in log units, in each repeat that has a search of every cell.

    Searches of one repeat may go up and down together. These effects, and Student's t over them,
    suppose nothing about that: only repeats have to be independent.
    """
    found = [
        {(row["seed"], row["repeat"]): float(row["first_failure"]) for row in rows}
        for rows in (matching(ours, cell.where) for cell in part.cells)
    ]
    x = np.array([cell.x for cell in part.cells])
    strata = np.array([cell.stratum for cell in part.cells])
    sizes = [[own[block] for own in found] for block in sorted(set.intersection(*map(set, found)))]
    effects = [slope(x, np.log(of_block), strata, with_interval=False) for of_block in sizes]
    return np.array([effect.value for effect in effects])


def blocked_table(folder: StudyFolder) -> str:
    """Both p-values, not adjusted, of every claim about logarithms that is not open."""
    rows = []
    for assessed in folder.assessed:
        if assessed.claim.quantity == "log" and not any(e.lacking for e in assessed.evidence):
            effects = [block_effects(part, folder.rows) for part in assessed.claim.parts]
            rows.append(_blocked_row(assessed, effects))
    p = ["p, searches independent", "p, repeats independent"]
    opposite = ["p of the opposite, searches", "p of the opposite, repeats"]
    return markdown(["claim", "model", "repeats", *p, *opposite], rows)


def _blocked_row(assessed: Assessment, effects: Sequence[Array]) -> list[object]:
    claim = assessed.claim
    evidence = []
    for e, values in zip(assessed.evidence, effects, strict=True):
        test = mean_test(values, claim.edge)
        p, against = (test.greater, test.less)[:: 1 if claim.side == "greater" else -1]
        evidence.append(replace(e, p=p, p_against=against))
    blocked = replace(assessed, evidence=tuple(evidence))
    both = (assessed.p, blocked.p, assessed.p_against, blocked.p_against)
    return [claim.label, claim.model, min(map(len, effects)), *map(p_text, both)]


def reseeded_table(folder: StudyFolder) -> str:
    """Searches by a Trainer that re-seeds, beside independent ones and the published numbers."""
    path = folder.path / "benchmarks" / "reseeded_trainer.csv"
    searches = pd.read_csv(path) if path.is_file() else pd.DataFrame({"configuration": []})
    known = {_benchmark_name(row): row for _, row in folder.published_rows.iterrows()}
    rows = []
    for name, own in searches.groupby("configuration", sort=False):
        row, sizes = known[str(name)], own["first_failure"]
        theirs = f"{row['published_mean']:g} ± {row['published_std']:g}"
        reseeded = mean_text(sizes.mean(), sizes.std(), len(sizes), digits=1)
        ours = mean_text(row["ours_mean"], row["ours_std"], row["repeats"], digits=1)
        rows.append([name, theirs, reseeded, sizes.nunique(), ours])
    headings = ["configuration", "published", "re-seeded, mean ± std (searches)"]
    return markdown([*headings, "different results among them", "independent, ours"], rows)


def _benchmark_name(row: pd.Series) -> str:
    """Return the name of an architecture in the CSVs of the benchmarks."""
    if row["model"] == MLP.name:
        return f"{row['hidden_size']}x{row['num_layers']}"
    return f"d{row['hidden_size']} ff{row['d_ff']} h{row['num_heads']} x{row['num_layers']}"


def unlucky_table(folder: StudyFolder) -> str:
    """How likely published first failing sizes are, if a probe is asked once: success/ of a folder.

    Shares of many probes of those sizes, beside what searches find.
    """
    probes, known, rows = folder.inside("success").probes, folder.published_rows, []
    rates = rows_of(success_rates(probes)) if probes is not None and len(probes) else []
    for model, width, layers, heads, size, asked in UNLUCKY:
        shape = {"model": model, "hidden_size": width, "num_layers": layers, "num_heads": heads}
        (row, *_) = (r for r in rows_of(known) if all(r[k] == v for k, v in shape.items()))
        where = {**shape, "num_parameters": row["num_parameters"]}
        found = [r for r in matching(rates, where) if r["n"] in asked]
        name = name_of(row) if layers else f"{model}, no hidden layer"
        for rate in sorted(found, key=lambda rate: rate["n"]):
            share = f"{rate['share']:.3f}{interval_text(rate['low'], rate['high'])}"
            done = f"{rate['memorized']} of {rate['probes']}"
            ours = f"{number(row['ours_mean'])} ({row['repeats']})" if row["repeats"] else "-"
            rows.append([name, f"{size:,}", f"{rate['n']:,}", done, share, ours])
    headings = ["configuration", "published first failing size", "size", "memorized all of it"]
    ours = "ours, mean first failing size (searches)"
    return markdown([*headings, "share (95 % interval)", ours], rows)
