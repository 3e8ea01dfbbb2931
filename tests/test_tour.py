"""docs/tour.md: what its commands print is what stands below them."""

import platform
import re
import shlex

import pytest
from documents import fenced_blocks
from scripts import ROOT, run_script

from engines.native.load import load_engine

TOUR = ROOT / "docs" / "tour.md"
SHOWN = re.findall(
    r"^```sh\n(.*?)^```\n\n```text\n(.*?)^```$", TOUR.read_text(), re.MULTILINE | re.DOTALL
)


def words_of(command):
    program, script, *flags = shlex.split(command.replace("\\\n", " "))
    assert program == "python"
    return ROOT / script, flags


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or load_engine() is None,
    reason="the numbers are those of the compiled engine on an x86-64 CPU",
)
@pytest.mark.parametrize(("command", "output"), SHOWN, ids=lambda text: text.split()[1])
def test_a_command_prints_what_is_shown(command, output, tmp_path):
    script, flags = words_of(command)
    (tmp_path / "runs").mkdir()
    ended = run_script(script, *flags, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    lines = [line for line in ended.stdout.splitlines() if not line.startswith("seconds ")]
    assert lines == output.splitlines()
    if "--figure" in flags:
        assert (tmp_path / flags[flags.index("--figure") + 1]).is_file()


def test_the_larger_size_is_not_memorized(tmp_path):
    assert "With `--num-sequences 600` it says `memorized no`" in TOUR.read_text().replace(
        "\n", " "
    )
    script, flags = words_of(SHOWN[1][0])
    flags[flags.index("--num-sequences") + 1] = "600"
    ended = run_script(script, *flags, cwd=tmp_path)
    assert re.search(r"^memorized +no$", ended.stdout, re.MULTILINE)


def test_the_python_runs(tmp_path):
    (code,) = fenced_blocks(TOUR, "python")
    (tmp_path / "mine.py").write_text(code)
    ended = run_script(tmp_path / "mine.py", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) == 3


def test_three_outputs_are_shown():
    assert len(SHOWN) == 3
