"""The table at the end of a search: every configuration beside the published number. No torch."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import pandas as pd

from study.comparison import beside_published, interval_text
from threshold_search.questions.question import Question, Row
from visualizations.results import PAPER_PROTOCOL, results_frame

CAPTION = (
    "mean, median and std are of first_failure, the published convention: the smallest size found\n"
    "to fail, one more than the largest memorized (threshold). The 95 % interval is of the mean."
)


def summary_table(finished: Sequence[tuple[Question, Row]]) -> str:
    """Return the finished searches as text, one line per configuration, sizes in sequences."""
    searches = results_frame([row for _, row in finished])
    searches["configuration"] = [
        _configuration(search.architecture.name, row) for search, row in finished
    ]
    table = beside_published(searches, also=["configuration"])
    lines = [_line(row) for row in table.to_dict("records")]
    return f"{pd.DataFrame(lines).to_string(index=False)}\n{CAPTION}"


def _line(row: dict[Hashable, Any]) -> dict[str, object]:
    at_least = ">=" if row["capped"] else ""
    return {
        "configuration": row["configuration"],
        "budget": row["budget"],
        "true parameters": row["num_parameters"],
        "repeats": row["repeats"],
        "mean": f"{at_least}{row['ours_mean']:.1f}",
        "95 % interval": interval_text(row["ours_low"], row["ours_high"], row["capped"]),
        "median": f"{at_least}{row['ours_median']:g}",
        "std": "-" if pd.isna(row["ours_std"]) else f"{row['ours_std']:.1f}",
        "published mean": "-" if pd.isna(row["published_mean"]) else f"{row['published_mean']:g}",
    }


def _configuration(architecture: str, row: dict[str, Any]) -> str:
    name, label = f"{row['model']} {architecture}", row["protocol"]
    return name if label == PAPER_PROTOCOL else f"{name} ({label})"
