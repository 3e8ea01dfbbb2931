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
SEARCH = (
    f"{BINARY_SEARCH} --model mlp {SMALL} --repeats 1 --max-size 4 --workers 1 --results-dir out"
)
# Takes a second: every probe is in the log.
LOGGED = f"{BINARY_SEARCH} --model mlp --params 10000 --layers 1 --results-dir out"
SCRIPTS = [TRAIN_MLP, TRAIN_TRANSFORMER, BINARY_SEARCH, GENERATOR, FIGURES]

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")


@pytest.fixture(autouse=True)
def usual(monkeypatch, tmp_path):
    """Buffered streams, as most users have them, and the committed log."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    (tmp_path / "out").mkdir()
    log = ROOT / "results" / "mlp_probes.csv"
    (tmp_path / "out" / log.name).write_bytes(log.read_bytes())


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


@pytest.mark.parametrize("command", [TRAIN, LOGGED], ids=["train", "search"])
@pytest.mark.parametrize("redirection", ["2>&-", "2>/dev/full", "2>&- <&-"])
def test_without_standard_error(command, redirection, tmp_path):
    status, stdout, _ = shell(command, redirection, tmp_path)
    assert status == 0
    assert "mlp 4" in stdout and "Traceback" not in stdout
    assert_complete(tmp_path, command)


@pytest.mark.parametrize("command", [TRAIN, LOGGED], ids=["train", "search"])
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


def test_help_that_nobody_can_read(tmp_path):
    status, _, stderr = shell(f"{GENERATOR} --help", ">&-", tmp_path)
    assert (status, stderr) == (1, f"{GENERATOR.name}: error: standard output is closed\n")


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", ">&- 2>&- <&-", ">/dev/full"])
def test_a_mistake_in_the_flags_is_one_whatever_the_streams(redirection, tmp_path):
    for script in (GENERATOR, BINARY_SEARCH):
        assert shell(f"{script} --no-such-flag", redirection, tmp_path)[0] == 2


def outcome_in_process(main, stdout):
    """Return (status, stderr) of ``run(main)`` in a process with this standard output."""
    program = (
        "import sys\n"
        "from command_line.parser import SomeFailed, run\n"
        "from training.errors import UserError\n"
        f"def main():\n    {main}\n"
        "sys.argv = ['it.py']\n"
        "run(main)\n"
    )
    with open(stdout, "w") as file:
        ended = subprocess.run(
            [sys.executable, "-c", program],
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
    return ended.returncode, ended.stderr


FULL = "it.py: error: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        ("SomeFailed('one part')", 1, "it.py: error: one part\n"),
        ("UserError('mend it')", 2, "it.py: error: mend it\n"),
        ("KeyboardInterrupt('stopped')", 130, "\nstopped\n"),
        ("MemoryError()", 1, "it.py: error: not enough memory\n"),
    ],
)
def test_a_lost_output_hides_no_other_failure(raised, status, line):
    main = f"print('a table'); raise {raised}"
    assert outcome_in_process(main, os.devnull) == (status, line)
    assert outcome_in_process(main, "/dev/full") == (status, line + FULL)


@pytest.mark.parametrize("buffered", [True, False])
def test_a_lost_output_is_said_once(buffered, monkeypatch):
    if not buffered:
        monkeypatch.setenv("PYTHONUNBUFFERED", "1")
    assert outcome_in_process("print('a table')", "/dev/full") == (1, FULL)
    # As the search does with its table.
    main = (
        "import contextlib; from command_line.streams import OutputLost\n"
        "    with contextlib.suppress(OutputLost): print('a table')\n"
        "    raise SomeFailed('one part')"
    )
    line = "it.py: error: one part\n"
    assert outcome_in_process(main, "/dev/full") == (1, line + FULL)


CLOSED = """
import os, subprocess, sys
from command_line.parser import begin
begin()
with open("first", "w") as file:
    file.write(str(file.fileno()))
child = "import os; open('child', 'w').write(str([os.fstat(n).st_rdev for n in range(3)]))"
subprocess.run([sys.executable, "-c", child])
"""


def test_what_is_closed_is_the_null_device_for_workers_too(tmp_path):
    """Or a file that is opened gets the number, and what is printed ends in it."""
    (tmp_path / "closed.py").write_text(CLOSED)
    line = f"{shlex.quote(sys.executable)} closed.py <&- >&- 2>&-"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run(["sh", "-c", line], cwd=tmp_path, env=environment).returncode == 0
    assert int((tmp_path / "first").read_text()) > 2
    assert (tmp_path / "child").read_text() == str([os.stat(os.devnull).st_rdev] * 3)


BAR = """
import sys
from command_line.parser import run
def main():
    from tqdm import tqdm
    for _ in tqdm(range(3)):
        pass
    print("done")
run(main)
"""


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&-", "2>&1 >/dev/null", ""])
def test_a_progress_bar_that_nobody_can_see(redirection, tmp_path):
    (tmp_path / "bar.py").write_text(BAR)
    line = f"{shlex.quote(sys.executable)} bar.py {redirection}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(
        ["sh", "-c", line], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


def test_files_of_the_other_scripts_are_complete(tmp_path):
    assert shell(f"{GENERATOR} --num-sequences 20 --save m.csv", "<&- >&- 2>&-", tmp_path)[0] == 1
    assert len((tmp_path / "m.csv").read_text().splitlines()) == 21
    assert shell(f"{FIGURES} --results-dir .", "<&- >&- 2>&-", tmp_path)[0] == 1
    figures = [path.read_bytes() for path in (tmp_path / "figures").iterdir()]
    assert len(figures) == 8
    assert all(f[-12:-4] == b"\0\0\0\0IEND" or f.endswith(b"%%EOF\n") for f in figures)


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
