"""A search whose probes are all in the log: says so, at once, and without torch."""

import os
import resource
import subprocess
import sys

import pytest
from scripts import BINARY_SEARCH, ROOT, run_script

from engines.native.load import load_engine

# Runs a script as "python SCRIPT ..." does, then says whether it has imported torch.
WITNESS = """
import atexit, runpy, sys
sys.argv = sys.argv[1:]
atexit.register(lambda: print("torch" in sys.modules, "scipy.stats" in sys.modules))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
COMMITTED = ["--model", "mlp", "--params", "30000"]

needs_engine = pytest.mark.skipif(load_engine() is None, reason="the log is the engine's")
needs_no_gpu = pytest.mark.skipif(
    os.path.exists("/dev/nvidiactl") or sys.platform not in ("linux", "darwin"),
    reason="only torch knows whether there is a GPU to use",
)


@pytest.fixture
def committed(tmp_path):
    """Return a results folder with the committed MLP log alone."""
    log = ROOT / "results" / "mlp_probes.csv"
    (tmp_path / log.name).write_bytes(log.read_bytes())
    return tmp_path


@needs_engine
@needs_no_gpu
def test_the_committed_log_answers_without_torch(committed):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    flags = [str(BINARY_SEARCH), *COMMITTED, "--results-dir", str(committed)]
    ended = subprocess.run(
        [sys.executable, "-c", WITNESS, *flags], cwd=committed, capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.returncode == 0, ended.stderr
    *table, imported = ended.stdout.splitlines()
    assert imported == "False False"
    assert len([line for line in table if " 30000 " in line]) == 6
    # A second on a quiet machine; torch's import alone takes two.
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used < 4
    assert ended.stderr == (
        f"note: the logs in {committed} had every probe; nothing was trained. To measure anew, "
        "give another folder (--results-dir) or another --seed\n"
    )
    assert (committed / "mlp_results.csv").exists()
    assert not (committed / "runs.jsonl").exists()


@needs_engine
def test_another_seed_measures_anew(committed):
    small = ["--model", "mlp", "--params", 30000, "--layers", 1, "--repeats", 1, "--max-size", 2]
    where = ["--results-dir", committed, "--workers", 1]
    for seed, says in ((0, True), (1, False), (1, True)):
        ended = run_script(BINARY_SEARCH, *small, *where, "--seed", seed, cwd=committed)
        assert ended.returncode == 0, ended.stderr
        assert ("nothing was trained" in ended.stderr) == says
