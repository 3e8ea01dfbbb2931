"""The table at the end of a search: one line per configuration. No torch."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import pandas as pd

from threshold_search.questions.question import Question, Row
from visualizations.results import PAPER_PROTOCOL, results_frame
from visualizations.summary import beside_published

CAPTION = (
    "mean, median and std are of first_failure, the published convention: the smallest size found\n"
    "to fail, one more than the largest memorized (threshold). The 95 % interval is of the mean."
)


def searches_frame(finished: Sequence[tuple[Question, Row]]) -> pd.DataFrame:
    """Return finished searches as a data frame, with a short name of each ``configuration``."""
    searches = results_frame([row for _, row in finished])
    searches["configuration"] = [
        _configuration(search.architecture.name, row) for search, row in finished
    ]
    return searches


def summary_table(searches: pd.DataFrame) -> str:
    """Return :func:`searches_frame` as text, one line per configuration, sizes in sequences.

    If the frame has the column ``published_mean``, it stands beside ours.
    """
    table = beside_published(searches, also=["configuration"])
    lines = pd.DataFrame([_line(row) for row in table.to_dict("records")])
    if "published_mean" not in searches:
        lines = lines.drop(columns="published mean")
    return f"{lines.to_string(index=False)}\n{CAPTION}"


def _line(row: dict[Hashable, Any]) -> dict[str, object]:
    at_least, low, high = ">=" if row["capped"] else "", row["ours_low"], row["ours_high"]
    has_interval = pd.notna(low) and not row["capped"]
    return {
        "configuration": row["configuration"],
        "budget": row["budget"],
        "true parameters": row["num_parameters"],
        "repeats": row["repeats"],
        "mean": f"{at_least}{row['ours_mean']:.1f}",
        "95 % interval": f"{low:,.1f} to {high:,.1f}" if has_interval else "-",
        "median": f"{at_least}{row['ours_median']:g}",
        "std": "-" if pd.isna(row["ours_std"]) else f"{row['ours_std']:.1f}",
        "published mean": "-" if pd.isna(row["published_mean"]) else f"{row['published_mean']:g}",
    }


def _configuration(architecture: str, row: dict[str, Any]) -> str:
    name, label = f"{row['model']} {architecture}", row["protocol"]
    return name if label == PAPER_PROTOCOL else f"{name} ({label})"
