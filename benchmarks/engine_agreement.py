"""Do the fast engine and the reference loop find the same thresholds?

    python threshold_search/binary_search.py --model mlp --params 10000 --layers 1 \\
        --repeats 20 --results-dir results/engine_check
    python threshold_search/binary_search.py --model transformer --params 32000 --layers 1 \\
        --heads 4 --repeats 20 --results-dir results/engine_check
    (both again with --engine reference)
    python benchmarks/engine_agreement.py

Compares the two engines' thresholds in results/engine_check: mean, standard error, and the p-value
of a two-sample permutation test of the means. Both engines draw from the same streams, so equal
repeats also start from the same weights, data and batch order. Writes
results/benchmarks/engine_agreement.csv.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from machine import report

from command_line.parser import Parser, run
from threshold_search.results_folder import DEFAULT_FOLDER
from training.bits import BITS_VERSION
from training.errors import UserError
from visualizations.results import configuration_columns, load_results

FOLDER = DEFAULT_FOLDER / "engine_check"
LABELS = {"fast": "paper", "reference": "paper engine=reference"}
PERMUTATIONS = 20_000


def permutation_p(a: np.ndarray, b: np.ndarray, seed: int = 0) -> float:
    """Return the two-sided p-value of the difference of means of ``a`` and ``b``.

    The share of random splits of the pooled values, the observed one included, whose means are at
    least as far apart (Phipson and Smyth 2010).
    """
    random = np.random.default_rng(seed)
    pooled = np.concatenate([a, b]).astype(float)
    observed = abs(a.mean() - b.mean())
    splits = random.permuted(np.tile(pooled, (PERMUTATIONS, 1)), axis=1)
    gaps = np.abs(splits[:, : len(a)].mean(1) - splits[:, len(a) :].mean(1))
    return (1 + np.count_nonzero(gaps >= observed - 1e-9)) / (1 + PERMUTATIONS)


def main() -> None:
    """Compare, print and write the table."""
    Parser(__doc__).parse_args()
    rows = []
    results = load_results(FOLDER)
    results = results[results["bits"] == BITS_VERSION]
    if results.empty:
        raise UserError(
            f"{FOLDER} has no search of bits version {BITS_VERSION}; run them first (see --help)"
        )
    others = ("protocol", "bits", "budget", "num_parameters")
    keys = [c for c in configuration_columns(results) if c not in others]
    for values, group in results.groupby(keys, dropna=False):
        found = {
            name: group.loc[group["protocol"] == label]
            .sort_values("repeat")["threshold"]
            .to_numpy(dtype=int)
            for name, label in LABELS.items()
        }
        if min(map(len, found.values())) == 0:
            continue
        fast, reference = found["fast"], found["reference"]
        row = {k: v for k, v in zip(keys, values, strict=True) if pd.notna(v)}
        for name, sizes in found.items():
            row |= {
                f"{name}_repeats": len(sizes),
                f"{name}_mean": sizes.mean(),
                f"{name}_standard_error": sizes.std(ddof=1) / len(sizes) ** 0.5,
            }
        if len(fast) == len(reference):
            row["equal_thresholds"] = int((fast == reference).sum())
        row["p_value"] = permutation_p(fast, reference)
        rows.append(row)
    report(rows, "engine_agreement")


if __name__ == "__main__":
    run(main)
