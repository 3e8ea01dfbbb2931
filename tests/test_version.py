"""--version of every script, and the one place where the version stands."""

import tomllib

import pytest
from scripts import ROOT, run_script

from command_line.version import own_version, version_of

SCRIPTS = sorted(
    path
    for path in ROOT.glob("*/*.py")
    if path.parent.name not in ("tests", "benchmarks") and "\n    run(main)" in path.read_text()
)
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_every_script_says_it(script, tmp_path):
    ended = run_script(script, "--version", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"memorization-thresholds {VERSION}\n"


def test_documents_name_the_same_version():
    assert own_version() == VERSION
    assert f"\nversion: {VERSION}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {VERSION}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_a_package_that_is_not_there():
    assert version_of("no-such-package-at-all") is None
