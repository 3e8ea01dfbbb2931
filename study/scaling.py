"""The table of docs/scaling.md: what the driver's work costs."""

from __future__ import annotations

import pandas as pd

from threshold_search.log.results_folder import DEFAULT_FOLDER
from visualizations.markdown import markdown

DRIVER_COSTS = DEFAULT_FOLDER / "benchmarks" / "driver_costs.csv"


def driver_costs_table() -> str:
    """What reading a log and handing out jobs cost the driver."""
    rows = [
        [
            row["what"],
            f"{row['count']:,}",
            f"{row['cpu_seconds']:.2f} ({row['least']:.2f} to {row['most']:.2f})",
            f"{row['cpu_ms_each']:.2g}",
        ]
        for row in pd.read_csv(DRIVER_COSTS).to_dict("records")
    ]
    seconds = "CPU seconds, median (least to most)"
    return markdown(["what the driver does", "times", seconds, "milliseconds each"], rows)
