"""Do the fast engine, the reference loop and CUDA find the same thresholds?

    python threshold_search/binary_search.py --model mlp --params 10000 --layers 1 \\
        --repeats 20 --results-dir results/engine_check
    python threshold_search/binary_search.py --model transformer --params 32000 --layers 1 \\
        --heads 4 --repeats 20 --results-dir results/engine_check
    python threshold_search/binary_search.py --model decoder-only --hidden-size 64 --d-ff 256 \\
        --layers 1 --heads 4 --repeats 20 --results-dir results/engine_check
    (all again with --engine reference, and with --device cuda --results-dir results/h200)
    python benchmarks/engine_agreement.py

Compares the thresholds of what the fast engine has searched in results/engine_check with those of
the reference there and of CUDA in results/h200, whichever there are: mean, standard error, and the
p-value of a two-sample permutation test of the means against the fast engine's. The two engines
draw from the same streams, so equal repeats also start from the same weights, data and batch order,
and have the same dropout masks; on CUDA the masks are others. Writes
results/benchmarks/engine_agreement.csv.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from machine import report

from command_line.parser import Parser, run
from threshold_search.log.results_folder import DEFAULT_FOLDER
from training.errors import UserError
from training.probe import BITS_VERSION
from visualizations.results import configuration_columns, load_results

FOLDER, CUDA_FOLDER = DEFAULT_FOLDER / "engine_check", DEFAULT_FOLDER / "h200"
LABELS = {
    "fast": "paper",
    "reference": "paper engine=reference",
    "cuda": "paper device=cuda",
}
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
    results = pd.concat(load_results(folder) for folder in (FOLDER, CUDA_FOLDER))
    results = results[results["bits"] == BITS_VERSION]
    if results.empty:
        raise UserError(
            f"{FOLDER} has no search of bits version {BITS_VERSION}; run them first (see --help)"
        )
    others = ("protocol", "bits", "budget", "num_parameters")
    keys = [c for c in configuration_columns(results) if c not in others]
    for values, group in results.groupby(keys, dropna=False):
        found = {
            name: group[group["protocol"] == label].set_index("repeat")["threshold"].astype(int)
            for name, label in LABELS.items()
        }
        if found["fast"].empty or (found["reference"].empty and found["cuda"].empty):
            continue
        row = {k: v for k, v in zip(keys, values, strict=True) if pd.notna(v)}
        for name, sizes in found.items():
            row |= {
                f"{name}_repeats": len(sizes),
                f"{name}_mean": sizes.mean(),
                f"{name}_standard_error": sizes.sem(),
            }
        fast, reference = found["fast"].align(found["reference"], join="inner")
        row |= {"paired_repeats": len(fast), "equal_thresholds": int((fast == reference).sum())}
        for name in ("reference", "cuda"):
            if not found[name].empty:
                pair = found["fast"].to_numpy(), found[name].to_numpy()
                row[f"{name}_p_value"] = permutation_p(*pair)
        rows.append(row)
    report(rows, "engine_agreement")


if __name__ == "__main__":
    run(main)
