"""Shares of probes that memorized everything, with their intervals. No torch."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from scipy.stats import binomtest

from training.probe import Outcome, Probe
from visualizations.summary import CONFIDENCE


def success_rates(probes: pd.DataFrame) -> pd.DataFrame:
    """Return one row per configuration, protocol and size of ``probes``, in their order.

    ``probes`` are rows of :func:`~visualizations.results.load_probes`. Of a log that searches have
    written the shares say little: a search asks for a size only after smaller ones succeeded.
    Columns: what tells probes
    apart but for repeat; ``probes`` and ``memorized``, how many there are and how many of them
    succeeded; ``share``; ``low`` and ``high``, its 95 % interval by Wilson's score.
    """
    columns = list(probes.columns)
    by = [*columns[: columns.index("repeat")], "seed", "n"]
    table = (
        probes.groupby(by, sort=False, dropna=False)["memorized"]
        .agg(probes="size", memorized="sum")
        .reset_index()
    )
    intervals = [
        binomtest(int(k), int(n)).proportion_ci(CONFIDENCE, "wilson")
        for k, n in zip(table["memorized"], table["probes"], strict=True)
    ]
    table["share"] = table["memorized"] / table["probes"]
    table["low"] = [interval.low for interval in intervals]
    table["high"] = [interval.high for interval in intervals]
    return table


def rate_table(finished: Sequence[tuple[Probe, Outcome]]) -> str:
    """Return finished probes as text, one line per configuration and size."""
    rows = pd.DataFrame(
        [
            {
                "configuration": f"{p.architecture.spec.name} {p.architecture.name} ({p.label})",
                "repeat": p.repeat,
                "seed": p.seed,
                "n": p.n,
                "memorized": outcome.memorized,
            }
            for p, outcome in finished
        ]
    )
    table = success_rates(rows).drop(columns="seed")
    table["95 % interval"] = [
        f"{low:.3f} to {high:.3f}" for low, high in zip(table["low"], table["high"], strict=True)
    ]
    table["share"] = table["share"].map("{:.3f}".format)
    return table.drop(columns=["low", "high"]).to_string(index=False)
