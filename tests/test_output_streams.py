"""Standard streams that are full or unread: the work is done all the same."""

import os
import shlex
import subprocess
import sys

import pytest
from scripts import BINARY_SEARCH, GENERATOR, ROOT, TRAIN_MLP

TRAIN = f"{TRAIN_MLP} --hidden-size 4 --num-sequences 8 --history h.csv --save w.pt"
# Takes a second: every probe is in the log.
SEARCH = f"{BINARY_SEARCH} --model mlp --params 10000 --layers 1 --results-dir out"

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")


@pytest.fixture(autouse=True)
def usual(monkeypatch, tmp_path):
    """Buffered streams, as most users have them, and the committed log."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    (tmp_path / "out").mkdir()
    log = ROOT / "results" / "mlp_probes.csv"
    (tmp_path / "out" / log.name).write_bytes(log.read_bytes())


def shell(command, redirection, folder, **environment):
    """Run a script with a shell's redirections; return (status, stdout, stderr)."""
    line = f"{shlex.quote(sys.executable)} {command} {redirection}"
    ended = subprocess.run(
        ["sh", "-c", line],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return ended.returncode, ended.stdout, ended.stderr


def assert_complete(folder, command):
    if command == TRAIN:
        header, *rows = (folder / "h.csv").read_text().splitlines()
        assert header == "epoch,loss,accuracy,learning_rate" and rows
        assert (folder / "w.pt").stat().st_size > 1000
    else:
        header, *rows = (folder / "out" / "mlp_results.csv").read_text().splitlines()
        assert header.startswith("model,protocol,") and rows


@pytest.mark.parametrize("command", [TRAIN, SEARCH], ids=["train", "search"])
def test_on_a_full_disk(command, tmp_path):
    status, stdout, _ = shell(command, "2>/dev/full", tmp_path)
    assert status == 0 and "mlp 4" in stdout
    assert_complete(tmp_path, command)
    status, _, stderr = shell(command, ">/dev/full", tmp_path)
    assert status == 1
    assert "No space left on device" in stderr.splitlines()[-1]
    assert "Traceback" not in stderr and "ignored" not in stderr
    assert stderr.count("error:") == 1
    assert_complete(tmp_path, command)


def test_a_reader_that_has_left(tmp_path):
    ended = shell(f"{GENERATOR} --num-sequences 100000", "| head -1", tmp_path)
    assert ended[1].count("\n") == 1 and ended[2] == ""


def test_help_and_mistakes_on_a_full_disk(tmp_path):
    status, _, stderr = shell(f"{GENERATOR} --help", ">/dev/full", tmp_path)
    assert status == 1
    assert stderr.count("\n") == 1 and "No space left" in stderr
    for redirection in (">/dev/full", "2>/dev/full"):
        assert shell(f"{GENERATOR} --no-such-flag", redirection, tmp_path)[0] == 2


FULL = "it.py: error: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize(
    ("raised", "status", "line"),
    [
        ("SomeFailed('one part')", 1, "it.py: error: one part\n"),
        ("UserError('mend it')", 2, "it.py: error: mend it\n"),
        ("MemoryError()", 1, "it.py: error: not enough memory\n"),
    ],
)
def test_a_lost_output_hides_no_other_failure(raised, status, line, tmp_path):
    (tmp_path / "it.py").write_text(
        "from command_line.parser import SomeFailed, run\n"
        "from training.errors import UserError\n"
        f"def main():\n    print('a table'); raise {raised}\n"
        "run(main)\n"
    )
    assert shell("it.py", "", tmp_path) == (status, "a table\n", line)
    assert shell("it.py", ">/dev/full", tmp_path) == (status, "", line + FULL)


def test_a_progress_bar_that_nobody_can_see(tmp_path):
    (tmp_path / "bar.py").write_text(
        "from command_line.parser import run\n"
        "def main():\n"
        "    from tqdm import tqdm\n"
        "    print(sum(tqdm(range(3))))\n"
        "run(main)\n"
    )
    assert shell("bar.py", "2>/dev/full", tmp_path) == (0, "3\n", "")
    status, _, stderr = shell("bar.py", "", tmp_path, PYTHONIOENCODING="ascii")
    assert status == 0 and "3/3" in stderr


def test_what_an_encoding_lacks_is_escaped(tmp_path):
    command = f"{TRAIN} --save ü/missing/w.pt"
    status, _, stderr = shell(command, "", tmp_path, PYTHONIOENCODING="ascii")
    assert status == 2 and r"cannot write \xfc/missing/w.pt" in stderr
