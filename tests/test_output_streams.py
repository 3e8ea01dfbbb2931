"""Standard streams that are closed, full or unread: the work is done all the same."""

import os
import shlex
import subprocess
import sys

import pytest
from scripts import BINARY_SEARCH, ROOT, TRAIN_MLP, TRAIN_TRANSFORMER

GENERATOR = ROOT / "dataset" / "synthetic_generator.py"
FIGURES = ROOT / "visualizations" / "figures.py"
SMALL = "--hidden-size 4 --layers 1"
TRAIN = f"{TRAIN_MLP} {SMALL} --num-sequences 8 --history h.csv --save w.pt"
SEARCH = f"{BINARY_SEARCH} --model mlp {SMALL} --repeats 1 --max-size 4 --results-dir out"
SCRIPTS = [TRAIN_MLP, TRAIN_TRANSFORMER, BINARY_SEARCH, GENERATOR, FIGURES]

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")


def shell(command, redirection, folder):
    """Run a script with a shell's redirections; return (status, stdout, stderr)."""
    line = f"{shlex.quote(sys.executable)} {command} {redirection}"
    ended = subprocess.run(
        ["sh", "-c", line], cwd=folder, capture_output=True, text=True, timeout=120
    )
    return ended.returncode, ended.stdout, ended.stderr


def assert_complete(folder, command):
    if command == TRAIN:
        header, *rows = (folder / "h.csv").read_text().splitlines()
        assert header == "epoch,loss,accuracy,learning_rate" and rows
        assert (folder / "w.pt").stat().st_size > 1000
    else:
        for name in ("mlp_probes.csv", "mlp_results.csv"):
            header, *rows = (folder / "out" / name).read_text().splitlines()
            assert header.startswith("model,protocol,") and rows
            assert all(row.startswith("mlp,paper") for row in rows)


@pytest.mark.parametrize("command", [TRAIN, SEARCH], ids=["train", "search"])
@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2>&- <&-"])
def test_without_standard_error(command, redirection, tmp_path):
    status, stdout, _ = shell(command, redirection, tmp_path)
    assert status == 0
    assert "4x1" in stdout and "Traceback" not in stdout
    assert_complete(tmp_path, command)


@pytest.mark.parametrize("command", [TRAIN, SEARCH], ids=["train", "search"])
@pytest.mark.parametrize(
    ("redirection", "clue"),
    [(">&-", "standard output is closed"), (">/dev/full", "No space left on device")],
)
def test_a_lost_standard_output_is_one_line_and_status_1(command, redirection, clue, tmp_path):
    status, _, stderr = shell(command, redirection, tmp_path)
    assert status == 1
    assert clue in stderr.splitlines()[-1]
    assert "Traceback" not in stderr and "ignored" not in stderr
    assert stderr.count("error:") == 1
    assert_complete(tmp_path, command)


def test_all_streams_closed(tmp_path):
    status, *_ = shell(SEARCH, "<&- >&- 2>&-", tmp_path)
    assert status == 1
    assert_complete(tmp_path, SEARCH)


def test_a_reader_that_has_left(tmp_path):
    line = f"{shlex.quote(sys.executable)} {GENERATOR} --num-sequences 100000 | head -1"
    ended = subprocess.run(["sh", "-c", line], cwd=tmp_path, capture_output=True, text=True)
    assert ended.stdout.count("\n") == 1
    assert ended.stderr == ""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_help_into_a_full_disk(script, tmp_path):
    status, _, stderr = shell(f"{script} --help", ">/dev/full", tmp_path)
    assert status == 1
    assert stderr.count("\n") == 1 and "No space left" in stderr


def test_what_an_encoding_lacks_is_escaped(tmp_path):
    (tmp_path / "ü").mkdir()
    for encoding in ("ascii", "latin-1"):
        ended = subprocess.run(
            [sys.executable, *TRAIN.split(), "--save", "ü/missing/w.pt"],
            cwd=tmp_path,
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": encoding},
        )
        assert ended.returncode == 2
        expected = "ü".encode(encoding, errors="backslashreplace")
        assert b"cannot write " + expected + b"/missing/w.pt" in ended.stderr


def test_a_folder_whose_name_is_no_text(tmp_path):
    folder = os.fsencode(tmp_path) + b"/\xff\xe9"
    command = [sys.executable, *SEARCH.split()[:-1], folder]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True)
    assert ended.returncode == 0, ended.stderr
    assert sorted(os.listdir(folder))[0] == b"mlp_probes.csv"
    again = subprocess.run(command, cwd=tmp_path, capture_output=True)
    assert b"\\udcff\\udce9" in again.stderr and b"nothing was trained" in again.stderr
