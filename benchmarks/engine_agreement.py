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
from mlp_experiments import mlp_utils
from threshold_search.records import result_layout
from threshold_search.results_folder import DEFAULT_FOLDER, read_rows
from training.bits import BITS_VERSION
from training.errors import UserError
from transformer_experiments import transformer_utils

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
    for spec in (mlp_utils.SPEC, transformer_utils.SPEC):
        path = FOLDER / f"{spec.name}_results.csv"
        if not path.exists():
            raise UserError(f"{path} is missing; run the searches first (see --help)")
        rows_read = read_rows(path, result_layout(spec))
        results = pd.DataFrame([row for row in rows_read if row["bits"] == BITS_VERSION])
        if results.empty:
            raise UserError(f"{path} has no search of bits version {BITS_VERSION}; run them again")
        sizes = list(spec.sizes)
        for values, group in results.groupby(sizes):
            found = {
                name: group.loc[group.protocol == label].sort_values("repeat").threshold.to_numpy()
                for name, label in LABELS.items()
            }
            if min(map(len, found.values())) == 0:
                continue
            fast, reference = found["fast"], found["reference"]
            row = {"model": spec.name, **dict(zip(sizes, values, strict=True))}
            for name, thresholds in found.items():
                row |= {
                    f"{name}_repeats": len(thresholds),
                    f"{name}_mean": thresholds.mean(),
                    f"{name}_standard_error": thresholds.std(ddof=1) / len(thresholds) ** 0.5,
                }
            if len(fast) == len(reference):
                row["equal_thresholds"] = int((fast == reference).sum())
            row["p_value"] = permutation_p(fast, reference)
            rows.append(row)
    report(rows, "engine_agreement")


if __name__ == "__main__":
    run(main)
