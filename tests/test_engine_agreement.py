"""The comparison of the engines' thresholds: its statistic, its table, and what the page says."""

import engine_agreement
import numpy as np
import pandas as pd
import pytest
from scipy.stats import permutation_test
from scripts import ROOT

PAGE = (ROOT / "docs" / "engine.md").read_text()


def test_the_p_value_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.integers(40, 60, 5), rng.integers(50, 70, 6)  # 462 splits, all of them by scipy

    def gap(x, y, axis):
        return np.abs(x.mean(axis) - y.mean(axis))

    exact = permutation_test((a, b), gap, n_resamples=np.inf, alternative="greater").pvalue
    assert 0.01 < exact < 0.5
    assert engine_agreement.permutation_p(a, b) == pytest.approx(exact, abs=0.01)
    assert engine_agreement.permutation_p(a, a) == 1


def test_the_page_says_what_the_searches_found():
    """A column per configuration, in the order of the CSV's rows."""
    lines = PAGE.splitlines()
    found = pd.read_csv(ROOT / "results" / "benchmarks" / "engine_agreement.csv")

    def shown(engine):
        means, errors = found[f"{engine}_mean"], found[f"{engine}_standard_error"]
        return [f"{mean:.1f} ± {error:.1f}" for mean, error in zip(means, errors, strict=True)]

    equal = zip(found["equal_thresholds"], found["paired_repeats"], strict=True)
    expected = {
        "fast engine": shown("fast"),
        "reference": shown("reference"),
        "the same threshold": [f"{same} of {pairs}" for same, pairs in equal],
        "permutation test, p": [f"{p:.2f}" for p in found["reference_p_value"]],
        "CUDA": shown("cuda"),
        "CUDA against the fast engine, p": [f"{p:.2f}" for p in found["cuda_p_value"]],
    }
    for name, values in expected.items():
        assert f"| {' | '.join([name, *values])} |" in lines
    for engine in ("fast", "reference", "cuda"):
        repeats = ", ".join(str(n) for n in found[f"{engine}_repeats"])
        assert f"{engine} {repeats}" in " ".join(lines).lower()
