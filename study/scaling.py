"""The tables of docs/scaling.md: simulated workers, and what the driver's work costs."""

from __future__ import annotations

import pandas as pd

from threshold_search.log.results_folder import DEFAULT_FOLDER
from visualizations.markdown import markdown

SIMULATED = DEFAULT_FOLDER / "benchmarks" / "scaling.csv"
DRIVER_COSTS = DEFAULT_FOLDER / "benchmarks" / "driver_costs.csv"
HEADINGS = (
    "workers",
    "hours without speculation",
    "efficiency",
    "hours with speculation",
    "efficiency",
    "probes trained for nothing",
    "hours without, nodes failing",
    "hours with, nodes failing",
    "jobs lost there (without, with)",
    "driver, ms per probe",
)


def scaling_table() -> str:
    """One row per number of workers; the driver's time is the largest of the four cases."""
    table = pd.read_csv(SIMULATED)
    rows = []
    for workers in sorted(set(table["workers"])):
        cases = table[table["workers"] == workers]
        case = {
            (record["failures_per_node_hour"] > 0, record["speculation"]): record
            for record in cases.to_dict("records")
        }
        plain, guessing = case[False, False], case[False, True]
        failing, both = case[True, False], case[True, True]
        rows.append(
            [
                f"{workers:,}",
                f"{plain['makespan_hours']:.3g}",
                f"{plain['efficiency']:.2f}",
                f"{guessing['makespan_hours']:.3g}",
                f"{guessing['efficiency']:.2f}",
                f"{guessing['probes_trained'] - guessing['probes_counted']:,}",
                f"{failing['makespan_hours']:.3g}",
                f"{both['makespan_hours']:.3g}",
                f"{failing['jobs_lost']}, {both['jobs_lost']}",
                f"{cases['driver_ms_per_probe'].max():.2f}",
            ]
        )
    return markdown(HEADINGS, rows)


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
