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

    def shown(text, *columns):
        """Return a cell per row of the CSV."""
        return [text.format(*row) for row in found[list(columns)].itertuples(index=False)]

    def of(engine):
        return shown("{:.1f} ± {:.1f}", f"{engine}_mean", f"{engine}_standard_error")

    expected = {
        "fast engine": of("fast"),
        "reference": of("reference"),
        "the same threshold": shown("{} of {}", "equal_thresholds", "paired_repeats"),
        "permutation test, p": shown("{:.2f}", "reference_p_value"),
        "CUDA": of("cuda"),
        "CUDA against the fast engine, p": shown("{:.2f}", "cuda_p_value"),
    }
    for name, values in expected.items():
        assert f"| {' | '.join([name, *values])} |" in lines
    for engine in ("fast", "reference", "cuda"):
        repeats = ", ".join(str(n) for n in found[f"{engine}_repeats"])
        assert f"{engine} {repeats}" in " ".join(lines).lower()


def test_every_decoder_only_probe_agrees():
    probes = pd.read_csv(ROOT / "results" / "engine_check" / "decoder-only_probes.csv")
    fast, reference = (
        probes[probes["protocol"] == label].set_index(["repeat", "n"])
        for label in ("paper", "paper engine=reference")
    )
    both = fast.join(reference, how="inner", suffixes=("_fast", None))
    assert (both["memorized_fast"] == both["memorized"]).all()
    assert (both["epochs_fast"] == both["epochs"]).all()
    assert len(both) == len(reference)
    assert f"All {len(both)} decoder-only probes of the reference" in PAGE
