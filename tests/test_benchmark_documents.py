"""What the documents say of the benchmarks against their CSVs."""

import re

import pandas as pd
import pytest
from documents import LINES, PROSE, cells
from scripts import ROOT

BENCHMARK_RESULTS = ROOT / "results" / "benchmarks"

# Of every table its CSV, and what its columns hold of it, row by row.

BENCHMARKS = {
    "| configuration | reference loop | fast engine | speed-up | share of the floor | JAX |": (
        "step_times",
        ["reference_us", "fast_us", "speedup", "share_of_floor", "jax_us"],
    ),
    "| configuration with AVX-512 | reference loop | fast engine | speed-up "
    "| share of the floor |": (
        "step_times_avx512",
        ["reference_us", "fast_us", "speedup", "share_of_floor"],
    ),
    "| configuration | reference loop | JAX | JAX compiles, seconds | this engine "
    "| floor of the arithmetic |": (
        "step_times",
        ["reference_us", "jax_us", "jax_compile_seconds", "fast_us", "floor_us"],
    ),
    "| configuration | Trainer, seconds | probes | fast engine, seconds | probes | speed-up |": (
        "search_times",
        ["trainer_seconds", "trainer_probes", "engine_seconds", "engine_probes", "speedup"],
    ),
    "| configuration | models | vmap / by hand, forward and backward "
    "| vmap / by hand, whole step | reference loop / vmap, whole step |": (
        "vmap_step",
        ["models", "gradient_ratio", "step_ratio", "reference_over_vmap"],
    ),
    "| configuration on an H200 | models | vmap / by hand, forward and backward "
    "| vmap / by hand, whole step | reference loop / vmap, whole step |": (
        "vmap_step_h200",
        ["models", "gradient_ratio", "step_ratio", "reference_over_vmap"],
    ),
    "| configuration on an H100 | models | vmap / by hand, whole step "
    "| reference loop / vmap, whole step |": (
        "vmap_step_cuda",
        ["models", "step_ratio", "reference_over_vmap"],
    ),
    "| configuration | models in the stack | models per second | reference loop | speed-up |": (
        "device_rates",
        ["models", "stacked_models_per_second", "looped_models_per_second", "speedup"],
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


@pytest.mark.parametrize(
    "header", BENCHMARKS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(BENCHMARKS.values())]
)
def test_a_benchmark_table_says_what_its_csv_says(header):
    name, columns = BENCHMARKS[header]
    (lines,) = (lines for lines in LINES.values() if header in lines)
    table = pd.read_csv(BENCHMARK_RESULTS / f"{name}.csv")
    if "jax_compile_seconds" in columns:  # the table of those that JAX was measured on
        table = table[table["jax_us"].notna()]
    start = lines.index(header) + 2
    rows = [cells(line) for line in lines[start : start + len(table)]]
    assert not lines[start + len(table)]  # as many rows as the CSV has
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


def test_the_prose_says_what_the_benchmarks_say():
    text = PROSE["docs/engine.md"]
    workers = pd.read_csv(BENCHMARK_RESULTS / "worker_times.csv").iloc[0]
    ratios = pd.read_csv(BENCHMARK_RESULTS / "engine_widths.csv").set_index("configuration")[
        "ratio"
    ]
    is_mlp = ratios.index.str.startswith("mlp ")
    wide, mlps = ratios[~is_mlp], ratios[is_mlp]
    assert f"transformers' steps take {wide.min():.2f} to {wide.max():.2f} of the time" in text
    assert f"the MLPs' {mlps.min():.2f} to {mlps.max():.2f} (" in text
    assert f"Two workers are {workers['speedup']:.2f} times as fast as one" in text


def test_what_a_gpu_is_worth_in_cores():
    rates = pd.read_csv(BENCHMARK_RESULTS / "device_rates.csv")
    steps = pd.read_csv(BENCHMARK_RESULTS / "step_times.csv")
    rates["steps_of"] = rates["configuration"].str.partition(" ")[2]
    rates = rates.merge(steps, left_on="steps_of", right_on="configuration")
    seconds = rates["fast_us"] * 8000e-6  # 500 epochs of 512 sequences in batches of 32
    rates["cores"] = rates["stacked_models_per_second"] * seconds
    by_models = rates.set_index(["model", "models_x"])["cores"]
    text = PROSE["docs/engine.md"]
    assert (
        f"take {seconds.iloc[0]:.2f} seconds of one CPU core for the MLP and "
        f"{seconds.iloc[-1]:.0f} seconds for the transformer"
    ) in text
    few, many = (
        [f"{by_models[model, models]:.2g}" for model in ("mlp", "transformer")]
        for models in (16, 128)
    )
    assert f"did as much as {few[0]} cores for the MLP and as {few[1]} for the transformer" in text
    assert f"128 as much as {many[0]} and {many[1]}." in text


def test_the_decision_says_what_was_measured():
    text = PROSE["docs/decisions/stacked-models.md"]
    cpu, cuda = (
        pd.read_csv(BENCHMARK_RESULTS / f"{name}.csv") for name in ("vmap_step", "vmap_step_h200")
    )

    def extremes(table, model):
        ratios = table[table["model"] == model]["step_ratio"]
        return f"{ratios.min():.2f} to {ratios.max():.2f}"

    on_cpu = {model: extremes(cpu, model) for model in cpu["model"].unique()}
    assert (
        f"**Transformer**: {on_cpu['transformer']} on a CPU and {extremes(cuda, 'transformer')} "
        "on CUDA."
    ) in text
    assert f"**Decoder-only**: {on_cpu['decoder-only']} on a CPU." in text
    assert f"up to {on_cpu['mlp'].split()[-1]} on a CPU" in text
    ratios = cpu["reference_over_vmap"]
    assert f"({ratios.min():.2f} to {ratios.max():.2f} times here)" in text
