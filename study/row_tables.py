"""The tables of the documents that have published rows, or architectures, beside ours."""

from __future__ import annotations

import numpy as np

from mlp_experiments.mlp_utils import SPEC as MLP
from study.architectures import at_true_budgets, side_by_side
from study.claims import where_of
from study.comparison import (
    LINEAR_PROGRAM,
    Row,
    every_configuration,
    label_of,
    matching,
    name_of,
    published,
    rows_of,
)
from study.folder import StudyFolder
from visualizations.markdown import counted, interval_text, markdown, mean_text, number
from visualizations.summary import bits_per_parameter

HEADLINE = ((1, 49, 1, None), (3, 447, 1, None), (4, 32, 1, 4))  # table, width, layers, heads
HEADINGS = (
    "configuration",
    "true parameters",
    "ours, mean ± std (repeats)",
    "95 % interval",
    "published",
    "bits per parameter (ours)",
)


def headline_table(folder: StudyFolder) -> str:
    """Three published rows: ours beside the published numbers."""
    rows = {
        (row["table"], row["hidden_size"], row["num_layers"], row["num_heads"]): row
        for row in rows_of(folder.published_rows)
    }
    return markdown(HEADINGS, [_row(rows[key]) for key in HEADLINE])


def published_table(folder: StudyFolder, model: str | None = None) -> str:
    """Every published row, of one ``model`` or of all, ours beside it."""
    rows = [
        [row["table"], *_row(row)]
        for row in rows_of(folder.published_rows)
        if model in (None, row["model"])
    ]
    return markdown(["table", *HEADINGS], rows)


def most_bits_table(folder: StudyFolder) -> str:
    """Of every model the published row that held most per parameter."""
    table = folder.published_rows.dropna(subset=["bits_per_parameter"])
    best = table.loc[table.groupby("model", sort=False)["bits_per_parameter"].idxmax()]
    rows = [[cells[i] for i in (0, 1, 2, 5)] for cells in map(_row, rows_of(best))]
    headings = ["configuration", "true parameters", "mean ± std (repeats)", "bits per parameter"]
    return markdown(headings, rows)


def depth_0_table(folder: StudyFolder) -> str:
    """The MLP without hidden layers: published, trained, and what the best weights would hold."""
    trained = rows_of(folder.published_rows)[0]
    published = f"{trained['published_mean']:,g} ± {trained['published_std']:,g}"
    rows = [["published", published, "-", "-"]]
    others = every_configuration(folder.inside("depth0").searches)
    found = {"trained, published protocol": trained}
    for name, label in (
        ("trained, `--protocol converged`", label_of(MLP, "converged")),
        ("any, by linear program", LINEAR_PROGRAM),
    ):
        if len(own := others[others["protocol"] == label]):
            found[name] = rows_of(own)[0]
    for name, row in found.items():
        _, _, ours, interval, _, bits = _row(row)
        rows.append([name, ours, interval, bits])
    return markdown(
        ["weights", "mean ± std (repeats)", "95 % interval", "bits per parameter"], rows
    )


def architectures_table(folder: StudyFolder) -> str:
    """The models of a folder at equal true numbers of parameters."""
    table = side_by_side(at_true_budgets(folder.paper))
    rows = [[f"{row[0]:,}", *row[1:]] for row in table.itertuples(index=False, name=None)]
    return markdown(["parameters", "layers", "heads", *table.columns[3:]], rows)


def labels_table(_: StudyFolder) -> str:
    """The published budgets beside the true numbers of parameters."""
    rows = [
        [model, f"{budget:,}", f"{counts.min():,}", f"{counts.max():,}"]
        for (model, budget), counts in published().groupby(["model", "budget"])["num_parameters"]
    ]
    return markdown(["model", "published budget", "true parameters: least", "most"], rows)


def same_network_table(folder: StudyFolder) -> str:
    """C3: the searches of the MLP without a hidden layer, by budget."""
    rows = []
    for row in rows_of(published()):
        if row["model"] == MLP.name and row["num_layers"] == 0:
            sizes = [r["first_failure"] for r in matching(folder.rows, where_of(row))]
            mean = f"{np.mean(sizes):.1f}" if sizes else "not measured"
            texts = [f"{row['budget']:,}", f"{row['num_parameters']:,}"]
            rows.append([*texts, f"{row['published_mean']:g}", mean, len(sizes)])
    return markdown(["budget", "true parameters", "published", "ours, mean", "searches"], rows)


def bits_table(folder: StudyFolder) -> str:
    """Bits per parameter of the best published row of each budget, ours and published."""
    table = folder.published_rows.dropna(subset=["ours_mean"])
    best = table.loc[table.groupby(["model", "budget"])["ours_mean"].idxmax()]
    ends = [
        bits_per_parameter(best[name] - 1, best)
        for name in ("ours_low", "ours_high", "published_mean")
    ]
    rows = []
    for row, low, high, theirs in zip(rows_of(best), *ends, strict=True):
        bits = f"{number(row['bits_per_parameter'])}{interval_text(low, high)}"
        known = [name_of(row), f"{row['num_parameters']:,}"]
        rows.append([*known, bits, row["repeats"], number(theirs)])
    ours = "ours, bits per parameter (95 % interval)"
    return markdown(["configuration", "true parameters", ours, "searches", "published"], rows)


def _row(row: Row) -> list[str]:
    """Return the cells of HEADINGS. A mean with a search at its size limit is a lower bound."""
    name = f"{row['model']} {row['hidden_size']} x {row['num_layers']}"
    if row.get("num_heads") is None:
        name += f" (budget {row['budget']:,})"
    else:
        name += f", d_ff {row['d_ff']:,}, {counted(row['num_heads'], 'head')}"
    published = "-"
    if row["published_mean"] is not None:
        published = f"{row['published_mean']:,g} ± {row['published_std']:,g}"
    parameters = f"{row['num_parameters']:,}"
    if row["repeats"] == 0:
        return [name, parameters, "not measured", "-", published, "-"]
    bits, interval = f"{row['bits_per_parameter']:#.3g}", "-"
    if row["capped"]:
        ours, bits = f"at least {row['ours_mean']:,.0f} ({row['repeats']})", f"at least {bits}"
    else:
        ours = mean_text(row["ours_mean"], row["ours_std"], row["repeats"])
    if not row["capped"] and row["repeats"] > 1:
        interval = f"{round(row['ours_low']):,} to {round(row['ours_high']):,}"
    return [name, parameters, ours, interval, published, bits]
