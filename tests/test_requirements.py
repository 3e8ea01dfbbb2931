"""Requirements files, lock, pyproject.toml and hooks say the same."""

import re
import tomllib
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from scripts import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCK = ROOT / "requirements-lock.txt"
OWN = canonicalize_name(PROJECT["name"])


def requirements_of(path):
    """Return what a file itself asks for, without the files that it includes."""
    lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def pins_of(path):
    """Return the one version of each package of a file of direct requirements."""
    found = {}
    for requirement in requirements_of(path):
        (only,) = requirement.specifier
        assert only.operator == "=="
        found[canonicalize_name(requirement.name)] = only.version
    return found


def ranges_of(*groups):
    wanted = [Requirement(text) for group in groups for text in group]
    return {canonicalize_name(r.name): r.specifier for r in wanted if r.name != PROJECT["name"]}


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("requirements.txt", [PROJECT["dependencies"], EXTRAS["notebook"]]),
        ("requirements-test.txt", [EXTRAS["test"]]),
        ("requirements-docs.txt", [EXTRAS["docs"]]),
    ],
)
def test_a_file_pins_what_the_project_asks_for(name, groups):
    pins, ranges = pins_of(ROOT / name), ranges_of(*groups)
    assert pins.keys() == ranges.keys()
    for package, version in pins.items():
        assert version in ranges[package]


def test_the_notebook_alone_needs_jupyter():
    assert "jupyter" not in ranges_of(PROJECT["dependencies"])
    for path in ROOT.glob("[!.]*/**/*.py"):
        if path.relative_to(ROOT).parts[0] not in ("tests", "build", "runs"):
            imports = r"^\s*(import|from) (jupyter|IPython|nb\w+|ipy\w+)"
            assert not re.search(imports, path.read_text(), re.MULTILINE), path


# The lock.


def locked():
    """Return the versions of each package of the lock, some for one Python or system only."""
    found = {}
    for requirement in requirements_of(LOCK):
        (only,) = requirement.specifier
        assert only.operator == "=="
        found.setdefault(canonicalize_name(requirement.name), []).append(
            (requirement, only.version)
        )
    return found


@pytest.mark.parametrize("path", sorted(ROOT.glob("requirements*.txt")), ids=lambda path: path.name)
def test_the_lock_agrees(path):
    if path != LOCK:
        versions = {name: [v for _, v in entries] for name, entries in locked().items()}
        for name, version in pins_of(path).items():
            assert versions[name] == [version], "run `make lock`"


PYTHONS = ("3.11.7", "3.12.1", "3.13.1", "3.14.1")
MACHINES = (("linux", "Linux", "x86_64"), ("darwin", "Darwin", "arm64"))


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine[0])
def test_the_lock_has_all_that_the_packages_require(python, machine):
    """By the metadata of what is installed; where versions differ, requirements may."""
    platform, system, processor = machine
    environment = {
        "python_full_version": python,
        "python_version": ".".join(python.split(".")[:2]),
        "sys_platform": platform,
        "platform_system": system,
        "platform_machine": processor,
    }
    entries = {
        name: [r for r, _ in found if r.marker is None or r.marker.evaluate(environment)]
        for name, found in locked().items()
    }
    assert all(len(found) <= 1 for found in entries.values())
    for name, found in entries.items():
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # of another system, or not needed by the tests
        if not found or f"=={distribution.version.partition('+')[0]}" != str(found[0].specifier):
            continue
        for text in distribution.requires or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({**environment, "extra": ""}):
                (pin,) = entries[canonicalize_name(needed.name)]
                (only,) = pin.specifier
                assert needed.specifier.contains(only.version, prereleases=True), (name, text)


def test_the_lock_says_nothing_of_where_it_was_made():
    text = LOCK.read_text()
    assert "make lock" in text
    assert not re.search(r"://|@|\.whl|--index|--find-links|^-", text, re.MULTILINE)
    assert OWN not in locked()


# The hooks.


def test_the_hooks_are_the_linters_of_the_makefile():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook["entry"] for repo in config["repos"] for hook in repo["hooks"]]
    (recipe,) = re.findall(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)
    lines = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe.splitlines()]
    assert hooks == lines
