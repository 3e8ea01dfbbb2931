"""The README's tables against the committed results."""

import re

import pandas as pd
import pytest
from scripts import ROOT

from visualizations.comparison import comparison_table

LINES = (ROOT / "README.md").read_text().splitlines()


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


ROWS = [cells(line) for line in LINES if re.match(r"\| (MLP|transformer)\b.*\|.*±", line)]


def shape_of(configuration):
    """Return the model, and the columns that a configuration's name fixes."""
    if found := re.match(r"transformer d = (\d+), (\d+) layers?, (\d+) heads?", configuration):
        size, layers, heads = map(int, found.groups())
        return "transformer", {"hidden_size": size, "num_layers": layers, "num_heads": heads}
    found = re.match(r"MLP (\d+) x (\d+)", configuration)
    size, layers = map(int, found.groups()) if found else (0, 0)
    return "mlp", {"hidden_size": size, "num_layers": layers}


def assert_rounded(text, value):
    """``text`` is ``value`` to as many places as it shows."""
    text = text.replace(",", "")
    places = len(text.partition(".")[2])
    assert abs(float(text) - value) <= 0.5001 * 10**-places, (text, value)


def test_the_table_is_there():
    assert len(ROWS) == 12


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_a_row_says_what_the_results_say(row):
    configuration, parameters, ours, published, bits = row
    model, shape = shape_of(configuration)
    table = comparison_table(model)
    for column, value in shape.items():
        table = table[table[column] == value]
    result = table.iloc[0]  # without hidden layers, every budget has the same searches
    assert int(parameters.replace(",", "")) == result["num_parameters"]
    assert result["repeats"] == 5
    for text, who in ((ours, "ours"), (published, "published")):
        mean, std = text.split("±")
        assert_rounded(mean, result[f"{who}_mean"])
        assert_rounded(std, result[f"{who}_std"])
    assert_rounded(bits, result["bits_per_parameter"])


# Of every table of a benchmark its CSV, and what its columns hold of it, row by row.
BENCHMARKS = {
    "| configuration | reference loop | fast engine | speed-up | share of the floor | JAX |": (
        "step_times",
        ["reference_us", "fast_us", "speedup", "share_of_floor", "jax_us"],
    ),
    "| configuration | Trainer, seconds | probes | fast engine, seconds | probes | speed-up |": (
        "search_times",
        ["trainer_seconds", "trainer_probes", "engine_seconds", "engine_probes", "speedup"],
    ),
    "| configuration | fast engine against reference, median | runs beyond 1e-4 "
    "| fast against float64, beyond 1e-4 | reference against float64, beyond 1e-4 |": (
        "loss_agreement",
        [
            "fast_vs_reference_median",
            "fast_vs_reference_parted",
            "fast_vs_float64_parted",
            "reference_vs_float64_parted",
        ],
    ),
}


def rounded(text, value):
    """Whether ``text`` is ``value`` as shown: to its places, or to one or three digits."""
    places = len(text.partition(".")[2])
    digits = 1 if "e" in text else 3
    return float(text) in (round(value, places), float(f"{value:.{digits}g}"))


@pytest.mark.parametrize("header", BENCHMARKS, ids=[name for name, _ in BENCHMARKS.values()])
def test_a_benchmark_table_says_what_its_csv_says(header):
    name, columns = BENCHMARKS[header]
    table = pd.read_csv(ROOT / "results" / "benchmarks" / f"{name}.csv")
    start = LINES.index(header) + 2
    rows = [cells(line) for line in LINES[start : start + len(table)]]
    assert not LINES[start + len(table)]  # as many rows as the CSV has
    for row, (_, measured) in zip(rows, table.iterrows(), strict=True):
        key = measured["configuration"]
        numbers = re.findall(r"\d+", row[0]) or ["0", "0"]  # "no hidden layer" is 0x0
        if row[0] != "the same, dropout 0.1":
            assert set(numbers) <= {*re.findall(r"\d+", key)}, (row[0], key)
        for text, column in zip(row[1:], columns, strict=True):
            value = measured[column]
            if not text:
                assert pd.isna(value)
                continue
            text, _, total = text.replace(",", "").partition(" of ")
            assert rounded(text, value), (row[0], column, text, value)
            assert not total or int(total) == measured["runs"]


def test_the_prose_says_what_the_csvs_say():
    folder = ROOT / "results" / "benchmarks"
    text = " ".join(LINES)
    workers = pd.read_csv(folder / "worker_times.csv").iloc[0]
    assert f"Two workers are {workers['speedup']:.2f} times as fast as one" in text
    for _, row in pd.read_csv(folder / "engine_agreement.csv").iterrows():
        repeats = int(row["fast_repeats"])
        means = [
            f"{row[f'{engine}_mean']:.1f} ± {row[f'{engine}_standard_error']:.1f}"
            for engine in ("fast", "reference")
        ]
        if means[0] == means[1]:
            assert f"{means[0]} for both, all {repeats} equal" in text
        else:
            assert (
                f"fast {means[0]}, reference {means[1]}, {row['equal_thresholds']} of {repeats} "
                f"equal, permutation test p = {row['p_value']:.2f}"
            ) in text
