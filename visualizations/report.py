"""The table at the end of a search: every configuration beside the published number."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from threshold_search.results_folder import DEFAULT_FOLDER
from threshold_search.run import Row
from threshold_search.searches import Search

PUBLISHED_TABLES = DEFAULT_FOLDER / "published_tables.csv"
CAPTION = (
    "mean, median and std are of first_failure, the published convention: the smallest size found\n"
    "to fail, one more than the largest memorized (threshold)."
)


def summary_table(finished: Sequence[tuple[Search, Row]]) -> str:
    """Return the finished searches as text, one line per configuration."""
    rows = pd.DataFrame([row for _, row in finished])
    rows["configuration"] = [
        _configuration(search.architecture.name, row) for search, row in finished
    ]
    capped = rows["first_failure"].isna()
    rows["first_failure"] = rows["first_failure"].fillna(rows["threshold"] + 1).astype(float)
    rows["capped"] = capped
    keys = ["configuration", "budget", "num_parameters"]
    published = _published_means()
    lines = []
    for (name, budget, parameters), group in rows.groupby(keys, sort=False):
        sizes = group["first_failure"]
        at_least = ">=" if group["capped"].any() else ""
        lines.append(
            {
                "configuration": name,
                "budget": budget,
                "true parameters": parameters,
                "repeats": len(group),
                "mean": f"{at_least}{sizes.mean():.1f}",
                "median": f"{at_least}{sizes.median():g}",
                "std": f"{sizes.std():.1f}" if len(group) > 1 else "-",
                "published mean": published.get(_published_key(group.iloc[0]), "-"),
            }
        )
    return f"{pd.DataFrame(lines).to_string(index=False)}\n{CAPTION}"


def _configuration(architecture: str, row: dict[str, object]) -> str:
    name, label = f"{row['model']} {architecture}", row["protocol"]
    return name if label == "paper" else f"{name} ({label})"


def _published_key(row: pd.Series) -> tuple:
    return tuple(
        int(value) if pd.notna(value) else 0
        for value in (
            row["budget"],
            row["hidden_size"],
            row.get("d_ff", 0),
            row.get("num_heads", 0),
            row["num_layers"],
        )
    )


def _published_means() -> dict[tuple, str]:
    tables = pd.read_csv(PUBLISHED_TABLES).rename(columns={"budget_label": "budget"})
    return {_published_key(row): f"{row['mean_threshold']:g}" for _, row in tables.iterrows()}
