"""A Ray that a search starts for itself ends with it, with Ctrl-C, or a kill of the driver."""

import importlib.util
import signal
import subprocess
import time

import pytest
from fault_trials import Family
from scripts import BINARY_SEARCH, command, results_without_seconds, run_script

# Looked for, not imported: other tests set what Ray reads when it is imported.
NEEDS_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray")
pytestmark = [pytest.mark.ray, NEEDS_RAY]

SEARCH = [
    "--model",
    "mlp",
    "--params",
    "10000",
    "--layers",
    "1",
    "--repeats",
    "8",  # long enough to be ended twice before its end
    "--workers",
    "2",
]
RAY = ["--executor", "ray", "--workers", "2", "--results-dir", "out"]
SOON, LATE = 90, 300  # seconds for whatever has to happen on a busy machine


def wait_until(condition, seconds=LATE):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def started(folder):
    return subprocess.Popen(
        command(BINARY_SEARCH, *SEARCH, *RAY),
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def ended_by(number, folder):
    """Send a signal to a search once it has logged something; return what it was, and wrote."""
    log = folder / "out" / "mlp_probes.csv"
    before = log.read_bytes() if log.exists() else b""
    process = started(folder)
    wait_until(lambda: process.poll() or (log.exists() and len(log.read_bytes()) > len(before)))
    assert process.poll() is None, process.communicate()
    family = Family(process.pid)
    assert len(family.running()) > 3, "no Ray"
    process.send_signal(number)
    _, stderr = process.communicate(timeout=LATE)
    assert log.read_bytes().startswith(before)
    return family, process.returncode, stderr.strip().splitlines()


def test_a_search_ends_continues_and_leaves_nothing(tmp_path):
    family, status, stderr = ended_by(signal.SIGINT, tmp_path)
    assert (status, stderr[-1]) == (
        130,
        "interrupted; every finished probe is in out, the same command continues from there",
    )
    wait_until(lambda: not family.running(), SOON)
    killed, status, _ = ended_by(signal.SIGKILL, tmp_path)
    assert status == -signal.SIGKILL
    process = started(tmp_path)
    family = Family(process.pid)
    while process.poll() is None:
        family.running()
        time.sleep(0.2)
    assert process.returncode == 0, process.stderr.read()
    wait_until(lambda: not family.running(), SOON)
    local = run_script(BINARY_SEARCH, *SEARCH, "--results-dir", "local", cwd=tmp_path)
    assert local.returncode == 0, local.stderr
    found, expected = (tmp_path / name / "mlp_results.csv" for name in ("out", "local"))
    assert results_without_seconds(found) == results_without_seconds(expected)
    wait_until(lambda: not killed.running())  # Ray's helpers need more than a minute to notice
