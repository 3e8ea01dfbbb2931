"""The published rows beside ours, read from the CSVs by pandas alone."""

import pandas as pd
from scripts import ROOT

RESULTS = ROOT / "results"
PUBLISHED = pd.read_csv(ROOT / "study" / "published_tables.csv").rename(
    columns={"budget_label": "budget", "mean_threshold": "mean", "std_threshold": "std"}
)
SHAPE = ["hidden_size", "d_ff", "num_heads", "num_layers"]


def results_of(model):
    table = pd.read_csv(RESULTS / f"{model}_results.csv")
    return table[table["protocol"] == "paper"]


def probes_of(model):
    table = pd.read_csv(RESULTS / f"{model}_probes.csv")
    return table[table["protocol"] == "paper"]


def compared(model):
    """Return our mean and std of every published row that has been measured, beside its own."""
    keys = ["budget", *(column for column in SHAPE if column in results_of(model))]
    ours = (
        results_of(model)
        .groupby(keys)
        .agg(
            parameters=("num_parameters", "first"),
            repeats=("repeat", "size"),
            ours_mean=("first_failure", "mean"),
            ours_std=("first_failure", "std"),
            largest_mean=("threshold", "mean"),
        )
    )
    published = PUBLISHED[PUBLISHED["model"] == model]
    return ours.reset_index().merge(published[["table", *keys, "mean", "std"]], on=keys)
