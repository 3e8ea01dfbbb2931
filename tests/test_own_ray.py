"""A Ray that a search starts for itself ends with it, with Ctrl-C, or a kill of the driver."""

import importlib.util
import os
import signal
import subprocess
import time

import pytest
from fault_processes import MARK, marked
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
    "3",
    "--repeats",
    "2",
    "--workers",
    "2",
]
RAY = ["--executor", "ray", "--workers", "2", "--results-dir", "out"]
ENDS = {signal.SIGINT: 130, signal.SIGKILL: -signal.SIGKILL}  # with their exit status
SECONDS = 300  # for whatever has to happen on a busy machine


def wait_until(condition):
    until = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_search_ends_continues_and_leaves_nothing(tmp_path):
    log = tmp_path / "out" / "mlp_probes.csv"
    for number, status in ENDS.items():
        before = log.read_bytes() if log.exists() else b""
        process = subprocess.Popen(
            command(BINARY_SEARCH, *SEARCH, *RAY),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, MARK: mark_of(tmp_path, number)},
        )
        wait_until(lambda rows=before: log.exists() and len(log.read_bytes()) > len(rows))
        process.send_signal(number)
        _, stderr = process.communicate(timeout=SECONDS)
        assert process.returncode == status
        if number == signal.SIGINT:
            assert stderr.strip().splitlines()[-1] == (
                "interrupted; every finished probe is in out, the same command continues from there"
            )
        assert log.read_bytes().startswith(before)
    whole = run_script(BINARY_SEARCH, *SEARCH, *RAY, cwd=tmp_path, **{MARK: mark_of(tmp_path, 0)})
    assert whole.returncode == 0, whole.stderr
    local = run_script(BINARY_SEARCH, *SEARCH, "--results-dir", "local", cwd=tmp_path)
    assert local.returncode == 0, local.stderr
    found, expected = (tmp_path / name / "mlp_results.csv" for name in ("out", "local"))
    assert results_without_seconds(found) == results_without_seconds(expected)
    # Nothing of Ray stays, whoever ended the driver; after a kill that takes more than a minute.
    wait_until(lambda: not any(marked(mark_of(tmp_path, n)) for n in (*ENDS, 0)))


def mark_of(folder, number):
    return f"{folder}-{int(number)}"
