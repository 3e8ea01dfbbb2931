"""The files of docs/scaling.md do what it says of them."""

import os
import subprocess
import sys

import pandas as pd
import pytest
from documents import PROSE, fenced_blocks
from scripts import ROOT, results_without_seconds, run_script

from threshold_search.executors.ray_workers import PACK_SECONDS

DOCUMENT = ROOT / "docs" / "scaling.md"
QUICK = ("--model", "mlp", "--params", "1000", "--layers", "0", "--repeats", "2", "--max-size", "4")


@pytest.fixture
def checkout(tmp_path):
    """A folder that looks like the checkout with its environment, and has the scripts."""
    (tmp_path / "threshold_search").symlink_to(ROOT / "threshold_search")
    activate = tmp_path / ".venv" / "bin" / "activate"
    activate.parent.mkdir(parents=True)
    (activate.parent / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (activate.parent / "python").chmod(0o755)
    activate.write_text(f'PATH="{activate.parent}:$PATH"\n')
    for text in fenced_blocks(DOCUMENT, "bash"):
        if text.startswith("#!"):
            (tmp_path / text.splitlines()[1].removeprefix("# ")).write_text(text)
    return tmp_path


def submit(checkout, script, **variables):
    ended = subprocess.run(
        ["bash", script, *QUICK],
        cwd=checkout,
        env={**os.environ, "SLURM_CPUS_PER_TASK": "1", **variables},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    return ended


def test_the_array_and_what_merges_it(checkout, tmp_path):
    script = checkout / "array.sh"
    text = script.read_text()
    assert "--array=1-32\n" in text and "\nSHARDS=32 " in text
    script.write_text(text.replace("SHARDS=32", "SHARDS=2"))
    for task in ("2", "1"):
        submit(checkout, "array.sh", SLURM_ARRAY_TASK_ID=task)
    early = checkout / "runs" / "array" / "part-3"  # of a task that was preempted before a probe
    early.mkdir()
    (early / "results.lock").touch()
    merged = submit(checkout, "merge.sh")
    assert "0 duplicate rows, 0 contradictions" in merged.stdout
    assert "nothing was trained" in merged.stderr
    whole = tmp_path / "whole"
    assert (
        run_script(
            ROOT / "threshold_search/binary_search.py", *QUICK, "--results-dir", whole, cwd=tmp_path
        ).returncode
        == 0
    )
    name = "mlp_results.csv"
    found = results_without_seconds(checkout / "runs" / "array" / "all" / name)
    assert found == results_without_seconds(whole / name)


def test_the_prose_says_what_the_driver_costs():
    table = pd.read_csv(ROOT / "results" / "benchmarks" / "driver_costs.csv").set_index("what")
    text = PROSE["docs/scaling.md"]
    per_second = 1000 / table.filter(like="long job, Ray", axis="index")["cpu_ms_each"]
    least, most = (round(rate, -1) for rate in (per_second.min(), per_second.max()))
    assert f"between {least:,.0f} and {most:,.0f} calls a second" in text
    assert f"calls of five seconds need {1024 / PACK_SECONDS:.0f} a second" in text
    assert least > 1024 / PACK_SECONDS
    read = table.loc["read a row of a log"]
    assert f"A log of {read['count']:,} rows is read in less than three seconds" in text
    assert read["most"] < 3


def test_the_cluster_file_passes_rays_own_check():
    pytest.importorskip("ray")
    import yaml
    from ray.autoscaler._private.util import prepare_config, validate_config

    (text,) = fenced_blocks(DOCUMENT, "yaml")
    config = prepare_config(yaml.safe_load(text))
    validate_config(config)
    assert config["max_workers"] == len(config["provider"]["worker_ips"])
    assert "--autoscaling-config" in config["head_start_ray_commands"][-1]
