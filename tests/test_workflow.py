"""The workflow runs what a person runs, on the systems and versions that the documents name."""

import re
import shutil
import subprocess
import tomllib

import pytest
import yaml
from documents import PROSE
from scripts import ROOT

FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
JOBS = {
    name: job for path in FILES for name, job in yaml.safe_load(path.read_text())["jobs"].items()
}
VERSIONS = ["3.11", "3.12", "3.13", "3.14"]


def commands(job):
    return [step["run"] for step in job["steps"] if "run" in step]


def test_it_runs_what_a_person_runs():
    assert commands(JOBS["test"]) == ["make test PYTHON=python"]
    assert commands(JOBS["docs"]) == ["make docs PYTHON=python"]


def test_every_version_on_both_systems():
    matrix = JOBS["test"]["strategy"]["matrix"]
    assert matrix["python"] == VERSIONS
    assert [system.partition("-")[0] for system in matrix["system"]] == ["ubuntu", "macos"]
    assert "Python 3.11 to 3.14" in PROSE["README.md"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={VERSIONS[0]}"


@pytest.mark.skipif(shutil.which("actionlint") is None, reason="actionlint is not installed")
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_actionlint_finds_nothing(path):
    ended = subprocess.run(["actionlint", str(path)], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr


def test_nobody_can_push_through_it():
    for path in FILES:
        assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}
        assert not re.search(r"secrets\.|pull_request_target", path.read_text())
