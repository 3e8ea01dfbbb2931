"""A search whose every probe is in the log: it says so, at once, and imports no torch."""

import os
import resource
import shutil
import subprocess
import sys

import pytest
from scripts import BINARY_SEARCH, ROOT, command

from engines.native.load import load_engine

SEARCH = ("--model", "mlp", "--params", "30000")
NOTE = "nothing was trained"
CPU_SECONDS = 2.0

pytestmark = pytest.mark.skipif(
    load_engine() is None, reason="the committed probes are the compiled engine's"
)


@pytest.fixture
def results(tmp_path):
    return shutil.copytree(ROOT / "results", tmp_path / "results")


def search(*flags, python=()):
    line = command(BINARY_SEARCH, *SEARCH, *flags)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(
        [line[0], *python, *line[1:]], capture_output=True, text=True, env=environment
    )


def test_table_and_note(results):
    log = (results / "mlp_probes.csv").read_bytes()
    runs = (results / "runs.jsonl").read_bytes()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = search("--results-dir", results)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert ended.returncode == 0, ended.stderr
    assert "mlp 149x1" in ended.stdout and "1728" in ended.stdout
    (note,) = ended.stderr.splitlines()
    assert NOTE in note and str(results) in note
    assert "--results-dir" in note and "--seed" in note  # how to measure anew
    assert (results / "mlp_probes.csv").read_bytes() == log
    assert (results / "runs.jsonl").read_bytes() == runs
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent < CPU_SECONDS


def test_torch_is_not_imported(results):
    ended = search("--results-dir", results, python=["-X", "importtime"])
    assert ended.returncode == 0 and NOTE in ended.stderr
    imported = {line.rpartition("|")[2].strip() for line in ended.stderr.splitlines()}
    assert "threshold_search.run" in imported  # the list is one
    assert not {name for name in imported if name.partition(".")[0] == "torch"}


def test_a_missing_torch_is_not_missed(results):
    """As strict as it gets: a search that trains nothing works where torch is broken."""
    block = "import sys, runpy; sys.modules['torch'] = None; sys.argv = sys.argv[1:]; "
    program = block + "runpy.run_path(sys.argv[0], run_name='__main__')"
    line = [sys.executable, "-c", program, str(BINARY_SEARCH), *SEARCH]
    ended = subprocess.run([*line, "--results-dir", results], capture_output=True, text=True)
    assert ended.returncode == 0 and NOTE in ended.stderr
    # What has to train says in one line that it cannot.
    ended = subprocess.run(
        [*line, "--results-dir", results, "--seed", "9"], capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert ended.stderr.count("\n") == 1 and "torch cannot be imported" in ended.stderr


def test_the_advice_is_right(results, tmp_path):
    small = ("--layers", "0", "--repeats", "1", "--max-size", "2", "--workers", "1")
    for advice in (("--results-dir", tmp_path / "anew"), ("--results-dir", results, "--seed", 7)):
        ended = search(*small, *advice)
        assert ended.returncode == 0, ended.stderr
        assert NOTE not in ended.stderr
