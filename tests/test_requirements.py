"""pyproject.toml, requirements.txt, the lock, the hooks and the workflow say the same."""

import re
import shutil
import subprocess
import tomllib
from importlib import metadata

import pytest
import yaml
from documents import PROSE
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from scripts import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
WORKFLOW = ROOT / ".github" / "workflows" / "test.yml"
VERSIONS = ["3.11", "3.12", "3.13", "3.14"]
MACHINES = (("linux", "Linux", "x86_64"), ("darwin", "Darwin", "arm64"))


def pins_of(path, environment):
    """Return the one version of each package that the file has for a Python and system."""
    found = {}
    for line in path.read_text().splitlines():
        if line and line[0] not in "#-":
            requirement = Requirement(line)
            (only,) = requirement.specifier
            assert only.operator == "=="
            if requirement.marker is None or requirement.marker.evaluate(environment):
                name = canonicalize_name(requirement.name)
                assert found.setdefault(name, only.version) == only.version
    return found


def test_requirements_pin_what_a_user_needs_as_the_lock_does():
    pins = pins_of(ROOT / "requirements.txt", {})
    needed = [Requirement(text).name for text in PROJECT["dependencies"] + EXTRAS["notebook"]]
    assert sorted(pins) == sorted(needed)
    assert pins.items() <= pins_of(ROOT / "requirements-lock.txt", {}).items(), "run `make lock`"


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine[0])
@pytest.mark.parametrize("python", VERSIONS)
def test_the_lock_has_all_that_is_needed(python, machine):
    """By what the project and the installed packages ask for; other versions may differ."""
    names = ("sys_platform", "platform_system", "platform_machine")
    environment = dict(zip(names, machine, strict=True)) | {"extra": ""}
    environment |= {"python_version": python, "python_full_version": f"{python}.2"}
    pins = pins_of(ROOT / "requirements-lock.txt", environment)
    wanted = {"the project": PROJECT["dependencies"], **EXTRAS}
    for name, version in pins.items():
        try:
            installed = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # of another system, or not needed by the tests
            continue
        if installed.version.partition("+")[0] == version:
            wanted[name] = installed.requires or ()
    for asking, texts in wanted.items():
        for needed in map(Requirement, texts):
            is_needed = needed.marker is None or needed.marker.evaluate(environment)
            if is_needed and needed.name != PROJECT["name"]:
                version = pins[canonicalize_name(needed.name)]
                assert needed.specifier.contains(version, prereleases=True), (asking, needed)


def test_the_lock_says_nothing_of_where_it_was_made():
    text = (ROOT / "requirements-lock.txt").read_text()
    assert not re.search(r"://|@|\.whl|--index|--find-links|^-", text, re.MULTILINE)


def test_the_hooks_are_the_linters_of_the_makefile():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook["entry"] for repo in config["repos"] for hook in repo["hooks"]]
    (recipe,) = re.findall(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    lines = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe.splitlines()]
    assert hooks == lines


def test_the_workflow_runs_what_a_person_runs_on_every_version_and_system():
    workflow = yaml.safe_load(WORKFLOW.read_text())
    for name, job in workflow["jobs"].items():
        assert [s["run"] for s in job["steps"] if "run" in s] == [f"make {name} PYTHON=python"]
    matrix = workflow["jobs"]["test"]["strategy"]["matrix"]
    assert matrix["python"] == VERSIONS
    assert [system.partition("-")[0] for system in matrix["system"]] == ["ubuntu", "macos"]
    assert "Python 3.11 to 3.14" in PROSE["README.md"]
    assert PROJECT["requires-python"] == f">={VERSIONS[0]}"
    assert workflow["permissions"] == {"contents": "read"}  # nobody can push through it


@pytest.mark.skipif(shutil.which("actionlint") is None, reason="actionlint is not installed")
def test_actionlint_finds_nothing():
    ended = subprocess.run(["actionlint", str(WORKFLOW)], cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, ""), ended.stderr
