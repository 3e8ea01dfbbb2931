"""--help of every script opens, after the usage, with a command to paste; --version."""

import re
import shlex
import tomllib

import pytest
from scripts import GENERATOR, ROOT, SCRIPTS, run_script


@pytest.fixture(scope="module")
def help_of(tmp_path_factory):
    texts = {}

    def get(script):
        if script not in texts:
            ended = run_script(script, "--help", cwd=tmp_path_factory.mktemp("elsewhere"))
            assert ended.returncode == 0, ended.stderr
            texts[script] = ended.stdout
        return texts[script]

    return get


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_first_thing_after_the_usage_is_a_command(script, help_of):
    usage, commands, about = help_of(script).split("\n\n")[:3]
    assert usage.startswith(f"usage: {script.name} ")
    assert "\n" not in usage
    first = commands.splitlines()[0]
    assert first.startswith(f"    python {script.relative_to(ROOT)}")
    assert not about.startswith(" ")  # what the script is for comes next


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_shell_can_take_every_line(script, help_of):
    """As it is pasted: no remark that is no comment, no flag that the help does not list."""
    text = help_of(script)
    commands = text.split("\n\n")[1].replace("\\\n", " ")
    known = set(re.findall(r"--[a-z][a-z-]*", text.partition("\noptions:\n")[2]))
    for line in commands.splitlines():
        words = shlex.split(line, comments=True)
        assert words[0] == "python"
        assert (ROOT / words[1]).is_file()
        assert not any(set(word) & set("()<>|;&") for word in words)
        shared = {"--d-ff", "--heads", "--exact-params"}  # of a model that the line names
        assert {word for word in words if word.startswith("--")} <= known | shared


def test_required_flags_are_in_the_usage(help_of):
    usages = {script.name: help_of(script).splitlines()[0] for script in SCRIPTS}
    rate, search = usages["success_rate.py"], usages["binary_search.py"]
    assert rate == "usage: success_rate.py --num-sequences N [FLAGS]"
    assert search == "usage: binary_search.py [FLAGS]"
    assert usages["figures.py"] == "usage: figures.py [COMMAND] [FLAGS]"


def test_the_version_is_everywhere_the_same(tmp_path):
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    ended = run_script(GENERATOR, "--version", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"memorization-thresholds {version}\n"
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {version}\n" in (ROOT / "CHANGELOG.md").read_text()
