"""The tables of docs/replication.md. visualizations/pages.py writes them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mlp_experiments.mlp_utils import SPEC as MLP
from threshold_search.results_folder import DEFAULT_FOLDER
from visualizations.assessment import (
    FAILS,
    HOLDS,
    IN_PART,
    LEAST_REPEATS,
    OPEN,
    UNDECIDED,
    Assessment,
    Finding,
    assess,
    matching,
    rows_of,
)
from visualizations.claims import Claim
from visualizations.comparison import every_published_row, published
from visualizations.effects import block_correlation
from visualizations.markdown import interval_text, markdown, number
from visualizations.results import configuration_columns, load_results, select

NAMED = 3  # parts in a remark; of more, their number
RESEEDED = DEFAULT_FOLDER / "benchmarks" / "reseeded_trainer.csv"

FEW = "the least p of five searches against five, corrected for all claims, is above 0.05"
NOT_CONVERGED = "an artefact of the protocol at 10,000, where longer training was tried"

# Of every claim the verdict that the document was written for, and what is to be said of it. Where
# the data give another verdict the table shows that one, without the remark, and a test fails.
VERDICTS: Mapping[tuple[str, str], tuple[str, str]] = {
    ("C1", "mlp"): (UNDECIDED, f"{FEW}; {NOT_CONVERGED}"),
    ("C2 trend", "mlp"): (HOLDS, ""),
    ("C2 collapse", "mlp"): (UNDECIDED, NOT_CONVERGED),
    ("C4", "transformer"): (OPEN, ""),
    ("C5 cost", "transformer"): (OPEN, ""),
    ("C5 gain", "transformer"): (OPEN, ""),
    ("C6", "transformer"): (OPEN, ""),
    ("C4", "decoder-only"): (IN_PART, ""),
    ("C5 cost", "decoder-only"): (FAILS, ""),
    ("C5 gain", "decoder-only"): (HOLDS, ""),
    ("C6", "decoder-only"): (FAILS, ""),
    ("C7 logarithms", "mlp"): (UNDECIDED, ""),
    ("C7 sequences", "mlp"): (UNDECIDED, ""),
    ("C7 logarithms", "transformer"): (OPEN, ""),
    ("C7 sequences", "transformer"): (OPEN, ""),
    ("C8 published sizes", "transformer"): (OPEN, ""),
    ("C8 equal parameters", "transformer"): (UNDECIDED, FEW),
    ("C8 equal parameters", "decoder-only"): (UNDECIDED, FEW),
}


@functools.cache
def _assessed(folder: Path = DEFAULT_FOLDER) -> list[Assessment]:
    return assess(load_results(folder))


def verdicts_table(results_dir: Path | str = DEFAULT_FOLDER) -> str:
    """Every claim: its weakest part, ours and published, p-values and the verdict."""
    rows = [_verdict_row(assessed) for assessed in _assessed(Path(results_dir))]
    at = next(i for i, row in enumerate(rows) if str(row[0]).startswith("C4"))
    same = "the threshold without a hidden layer is the same at every budget"
    rows.insert(at, ["C3", MLP.name, same, *["-"] * 5, "true by construction: it is one network"])
    headings = ["claim", "model", "what is claimed", "weakest part", "ours (95 % interval)"]
    return markdown([*headings, "published", "searches", "p, Holm", "verdict"], rows)


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
                    *([number(first.tau)] if claim.trend else []),
                    sum(first.counts),
                    *(p_text(finding.p) for finding in findings),
                ]
            )
    claim = groups[0][0].claim
    tau = ["Kendall's tau-b"] if claim.trend else []
    p = ["p"] if len(labels) == 1 else [f"p, {label}" for label in labels]
    ours = f"ours: {claim.effect} (95 % interval)"
    return markdown(["model", "part", "published", ours, *tau, "searches", *p], rows)


def same_network_table() -> str:
    """C3: the searches of the MLP without a hidden layer, by budget."""
    ours, rows = rows_of(select(load_results())), []
    for row in rows_of(published()):
        if row["model"] == MLP.name and row["num_layers"] == 0:
            where = {name: row[name] for name in ("model", "budget", "num_layers")}
            own = matching(ours, {**where, "num_parameters": row["num_parameters"]})
            sizes = [float(r["first_failure"]) for r in own]
            mean = f"{np.mean(sizes):.1f}" if sizes else "not measured"
            texts = [f"{row['budget']:,}", f"{row['num_parameters']:,}"]
            rows.append([*texts, f"{row['published_mean']:g}", mean, len(sizes)])
    return markdown(["budget", "true parameters", "published", "ours, mean", "searches"], rows)


def labels_table() -> str:
    """The published budgets beside the true numbers of parameters."""
    rows = [
        [model, f"{budget:,}", f"{counts.min():,}", f"{counts.max():,}"]
        for (model, budget), counts in published().groupby(["model", "budget"])["num_parameters"]
    ]
    return markdown(["model", "published budget", "true parameters: least", "most"], rows)


def bits_table() -> str:
    """Bits per parameter of the best published row of each budget, ours and published."""
    table = every_published_row()
    per_sequence = table["bits_per_parameter"] / table["threshold_mean"]
    table["published_bits"] = (table["published_mean"] - 1) * per_sequence
    for end in ("low", "high"):
        table[end] = (table[f"ours_{end}"] - 1) * per_sequence
    rows = []
    for _, group in table.dropna(subset=["ours_mean"]).groupby(["model", "budget"]):
        best = group.sort_values("ours_mean").iloc[-1]
        heads = "" if pd.isna(best["num_heads"]) else f", {best['num_heads']} heads"
        interval = interval_text(best["low"], best["high"])
        rows.append(
            [
                f"{best['model']} {best['hidden_size']} x {best['num_layers']}{heads}",
                f"{best['num_parameters']:,}",
                f"{number(best['bits_per_parameter'])}{interval}",
                best["repeats"],
                number(best["published_bits"]),
            ]
        )
    ours = "ours, bits per parameter (95 % interval)"
    return markdown(["configuration", "true parameters", ours, "searches", "published"], rows)


def independence_table() -> str:
    """How the searches of one repeat go together over the configurations of a model."""
    searches = select(load_results())
    rows = []
    for model in dict.fromkeys(searches["model"]):
        own = searches[searches["model"] == model]
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


def reseeded_table() -> str:
    """Searches by a Trainer that re-seeds, beside independent ones and the published numbers."""
    if not RESEEDED.is_file():
        return "Not measured yet.\n"
    table = every_published_row()
    known = {_short_name(row): row for _, row in table.iterrows()}
    rows = []
    searches = pd.read_csv(RESEEDED)
    for name in dict.fromkeys(searches["configuration"]):
        sizes = searches.loc[searches["configuration"] == name, "first_failure"]
        row = known[name]
        theirs = f"{row['published_mean']:g} ± {row['published_std']:g}"
        reseeded = f"{sizes.mean():,.1f} ± {sizes.std():,.1f} ({len(sizes)})"
        ours = f"{row['ours_mean']:,.1f} ± {row['ours_std']:,.1f} ({row['repeats']})"
        rows.append([name, theirs, reseeded, sizes.nunique(), ours])
    headings = ["configuration", "published", "re-seeded, mean ± std (searches)"]
    return markdown([*headings, "different results among them", "independent, ours"], rows)


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


def reason(assessed: Assessment) -> str:
    """Return which parts the verdict rests on, if it is another than that the claim holds."""
    findings, verdict = assessed.findings, assessed.verdict
    if verdict == OPEN:
        lacking = [finding for finding in findings if finding.lacking]
        return f"fewer than {LEAST_REPEATS} searches of a configuration in {_names(lacking)}"
    notes = []
    if verdict != HOLDS and assessed.supporting:
        notes.append(f"holds for {_names(assessed.supporting)}")
    if assessed.contradicting:
        notes.append(f"contradicted for {_names(assessed.contradicting)}")
    return "; ".join(notes)


def _names(findings: Sequence[Finding]) -> str:
    if len(findings) <= NAMED:
        return ", ".join(finding.part.name for finding in findings)
    return f"{len(findings)} parts"


def _verdict_row(assessed: Assessment) -> list[object]:
    claim, weakest = assessed.claim, assessed.weakest
    word, remark = VERDICTS.get((claim.label, claim.model), ("", ""))
    notes = [reason(assessed), remark if word == assessed.verdict else ""]
    said = "; ".join(note for note in notes if note)
    return [
        claim.label,
        claim.model,
        claim.statement,
        weakest.part.name,
        effect_text(claim, weakest),
        published_text(claim, weakest),
        assessed.searches,
        "-" if assessed.verdict == OPEN else p_text(assessed.p_holm),
        assessed.verdict + (f": {said}" if said else ""),
    ]


def published_text(claim: Claim, finding: Finding) -> str:
    """Return the effect and the tau of the published means, as far as there are such."""
    texts = []
    if claim.quantity == "log":
        texts.append(number(_unit(claim, finding.published_effect)))
    if claim.trend and not math.isnan(finding.published_tau):
        texts.append(f"tau-b {number(finding.published_tau)}")
    return ", ".join(texts) or "-"


def _unit(claim: Claim, value: float) -> float:
    return math.exp(value) if claim.quantity == "log" else value


def _short_name(row: pd.Series) -> str:
    """Return the name of an architecture in the CSVs of the benchmarks."""
    if row["model"] == MLP.name:
        return f"{row['hidden_size']}x{row['num_layers']}"
    return f"d{row['hidden_size']} ff{row['d_ff']} h{row['num_heads']} x{row['num_layers']}"


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
    "c3": same_network_table,
    "labels": labels_table,
    "bits": bits_table,
    "independence": independence_table,
    "reseeded": reseeded_table,
    **{name: functools.partial(parts_table, *labels) for name, labels in _PARTS.items()},
}
