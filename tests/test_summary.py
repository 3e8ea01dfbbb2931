"""The statistics over repeats, against scipy.stats and pandas."""

import statistics

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from made_results import MLP_1, MLP_4, write_results, write_widths
from scripts import ROOT

from visualizations.results import configuration_columns, load_results
from visualizations.summary import summarize

SIZES = {(8, "relu"): [90, 100, 111, 95], (16, "relu"): [200, 7], (8, "tanh"): [33]}


@pytest.fixture
def searches(tmp_path):
    write_widths(tmp_path, SIZES)
    return load_results(tmp_path)


def test_against_scipy_and_the_standard_library(searches):
    summary = summarize(searches, ["width", "activation"])
    groups = zip(summary["width"], summary["activation"], strict=True)
    assert list(groups) == list(SIZES)  # in the order of the file
    for sizes, (_, row) in zip(SIZES.values(), summary.iterrows(), strict=True):
        assert (row["n"], row["capped"]) == (len(sizes), 0)
        assert row["mean"] == pytest.approx(statistics.mean(sizes))
        assert row["median"] == statistics.median(sizes)
        if len(sizes) == 1:
            assert np.isnan([row["std"], row["low"], row["high"]]).all()
            continue
        assert row["std"] == pytest.approx(statistics.stdev(sizes))
        expected = scipy.stats.t.interval(
            0.95, len(sizes) - 1, loc=np.mean(sizes), scale=scipy.stats.sem(sizes)
        )
        assert (row["low"], row["high"]) == pytest.approx(expected)
    assert summary["low"][1] < 0  # nothing bounds it


def text_of(key):
    return " ".join("-" if pd.isna(value) else str(value) for value in key)


def test_the_committed_results_against_pandas():
    results = load_results(ROOT / "results")
    summary = summarize(results)
    by = configuration_columns(results)
    described = results.groupby(by, dropna=False)["first_failure"].describe()
    first = results[by].drop_duplicates()  # the order that is promised
    described.index = [text_of(key) for key in described.index]
    described = described.loc[[text_of(key) for key in first.itertuples(index=False, name=None)]]
    assert len(summary) == len(described) > 40
    for ours, theirs in {"n": "count", "mean": "mean", "median": "50%", "std": "std"}.items():
        np.testing.assert_allclose(
            summary[ours].to_numpy(float), described[theirs].to_numpy(float, na_value=np.nan)
        )
    assert summary[by].astype(object).equals(first.reset_index(drop=True).astype(object))


def test_the_interval_holds_the_true_mean_19_times_in_20(searches):
    random = np.random.default_rng(0)
    draws = random.normal(500, 20, size=(4000, 5)).round().astype(int)
    many = pd.DataFrame(
        {
            "row": np.repeat(np.arange(len(draws)), 5),
            "first_failure": draws.ravel(),
            "capped": False,
        }
    )
    summary = summarize(many, ["row"])
    share = ((summary["low"] <= 500) & (summary["high"] >= 500)).mean()
    assert share == pytest.approx(0.95, abs=0.012)  # 3.5 standard errors


def test_equal_repeats_have_an_interval_of_no_width(tmp_path):
    write_results(tmp_path, "mlp", [(MLP_1, [9, 9, 9])])
    (row,) = summarize(load_results(tmp_path)).to_dict("records")
    assert (row["std"], row["low"], row["high"]) == (0, 9, 9)


def test_capped_searches_are_counted(tmp_path):
    path = write_results(tmp_path, "mlp", [(MLP_1, [65, 65]), (MLP_4, [9])])
    path.write_text(path.read_text().replace("64,65,", "64,,", 1))
    summary = summarize(load_results(tmp_path))
    assert summary["capped"].tolist() == [1, 0]
    assert summary["mean"].tolist() == [65, 9]


def test_seeds_are_pooled_and_all_else_is_not(searches):
    searches.loc[0, "seed"] = 1
    assert summarize(searches)["n"].tolist() == [4, 2, 1]
    searches.loc[0, "bits"] = 1
    assert summarize(searches)["n"].tolist() == [1, 3, 2, 1]
