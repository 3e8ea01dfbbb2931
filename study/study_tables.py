"""The tables of docs/replication.md that test no claim: networks, bits, independence, re-seeding.

study/pages.py writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from mlp_experiments.mlp_utils import SPEC as MLP
from study.assessment import LEAST_REPEATS, matching, rows_of
from study.claim_tables import p_text
from study.claims import DEPTHS
from study.comparison import every_published_row, published
from study.effects import block_correlation, median_ratio
from threshold_search.log.results_folder import DEFAULT_FOLDER
from visualizations.markdown import interval_text, markdown, number
from visualizations.results import configuration_columns, load_results, select

RESEEDED = DEFAULT_FOLDER / "benchmarks" / "reseeded_trainer.csv"


def medians_table() -> str:
    """C2: medians of deeper MLPs over that of one hidden layer, ours and published."""
    ours, rows = rows_of(select(load_results())), []
    mlps = [row for row in rows_of(published()) if row["model"] == MLP.name]
    for budget in dict.fromkeys(row["budget"] for row in mlps):
        of_depth = {row["num_layers"]: row for row in mlps if row["budget"] == budget}
        sizes = {
            depth: np.array([float(r["first_failure"]) for r in matching(ours, _where(row))])
            for depth, row in of_depth.items()
        }
        for depth in DEPTHS[1:]:
            theirs = of_depth[depth]["published_median"] / of_depth[1]["published_median"]
            above, below = sizes[depth], sizes[1]
            text = "not measured"
            if min(len(above), len(below)) >= LEAST_REPEATS:
                ratio = median_ratio(above, below)
                text = f"{number(ratio.value)}{interval_text(ratio.low, ratio.high)}"
            part = f"{budget:,}: {depth} layers / 1"
            rows.append([part, number(theirs), text, len(above) + len(below)])
    ours_heading = "ours: ratio of medians (95 % interval, bootstrap)"
    return markdown(["part", "published", ours_heading, "searches"], rows)


def _where(row: Mapping[str, object]) -> dict[str, object]:
    return {name: row[name] for name in ("model", "budget", "num_parameters", "num_layers")}


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


def _short_name(row: pd.Series) -> str:
    """Return the name of an architecture in the CSVs of the benchmarks."""
    if row["model"] == MLP.name:
        return f"{row['hidden_size']}x{row['num_layers']}"
    return f"d{row['hidden_size']} ff{row['d_ff']} h{row['num_heads']} x{row['num_layers']}"


STUDY_TABLES: Mapping[str, Callable[[], str]] = {
    "c2-medians": medians_table,
    "c3": same_network_table,
    "labels": labels_table,
    "bits": bits_table,
    "independence": independence_table,
    "reseeded": reseeded_table,
}
