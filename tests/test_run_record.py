"""runs.jsonl: who writes it, when, and what must not be in it."""

import json
import re
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
import torch
from scripts import BINARY_SEARCH, ROOT, run_script
from test_driver import InstantWorkers, searches

from command_line import version
from mlp_experiments.mlp_utils import SPEC as MLP_SPEC
from threshold_search.driver import drive
from threshold_search.log import run_record
from threshold_search.log.results_folder import ResultsFolder
from threshold_search.log.run_record import append_run, command_line, describe_run
from training.errors import UserError
from training.probe import BITS_VERSION

FIELDS = [
    *("time", "command", "commit", "modified", "version", "bits", "engines", "native", "workers"),
    *("executor", "nodes"),
    *("cpu", "architecture", "system", "python", "numpy", "torch"),
    "torch_vectors",
    "gpu",
]
QUICK = "--model mlp --params 1000 --layers 0 --max-size 2 --workers 1"


def entries(folder):
    return [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]


def test_every_run_of_the_script_that_trains_leaves_one_entry(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    folder = home / "results"
    for repeats, expected in ((1, 1), (1, 1), (2, 2)):
        flags = [*QUICK.split(), "--repeats", repeats, "--results-dir", folder]
        ended = run_script(BINARY_SEARCH, *flags, cwd=home, HOME=str(home))
        assert ended.returncode == 0, ended.stderr
        assert len(entries(folder)) == expected
    text = (folder / "runs.jsonl").read_text()
    assert str(home) not in text and str(ROOT) not in text
    first, second = entries(folder)
    assert list(first) == list(second) == FIELDS
    assert first["command"] == f"binary_search.py {QUICK} --repeats 1 --results-dir results"
    assert second["command"] == first["command"].replace("repeats 1", "repeats 2")
    age = datetime.now(UTC) - datetime.fromisoformat(first["time"])
    assert timedelta(0) <= age < timedelta(minutes=5)
    assert first["bits"] == BITS_VERSION
    assert first["engines"]["mlp"]["device"] in ("cpu", "cuda")
    assert first["workers"] == 1
    assert first["python"] == ".".join(map(str, sys.version_info[:3]))
    for field in ("cpu", "architecture", "system", "numpy", "torch", "torch_vectors"):
        assert first[field], field


def test_written_before_the_first_probe_and_only_then(tmp_path):
    calls = []

    def run():
        workers = InstantWorkers()
        with ResultsFolder(tmp_path, [MLP_SPEC]) as folder:
            drive(
                searches(),
                folder,
                workers,
                before_training=lambda: calls.append((len(workers.running), len(workers.trained))),
            )

    run()
    assert calls == [(0, 0)]
    run()
    assert calls == [(0, 0)]


def test_a_torn_last_line_is_left_alone(tmp_path):
    append_run(tmp_path, {"run": 1})
    append_run(tmp_path, {"run": 2})
    path = tmp_path / "runs.jsonl"
    path.write_text(path.read_text()[:-4])
    append_run(tmp_path, {"run": 3})
    append_run(tmp_path, {"run": 4})
    assert path.read_text() == '{"run": 1}\n{"run":\n{"run": 3}\n{"run": 4}\n'

    (tmp_path / "none" / "runs.jsonl").mkdir(parents=True)
    with pytest.raises(UserError, match=r"cannot write to .*runs\.jsonl"):
        append_run(tmp_path / "none", {})


def test_what_the_caller_says_is_kept_and_the_gpu_is_named(monkeypatch):
    entry = describe_run({"mlp": "native", "transformer": "stacked"}, "cpu", 3, {"compiler": "c++"})
    assert entry["native"] == {"compiler": "c++"}
    assert entry["engines"]["transformer"] == {"engine": "stacked", "device": "cpu"}
    assert (entry["workers"], entry["gpu"]) == (3, None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a fast one")
    assert describe_run({}, "cuda", 1)["gpu"] == "a fast one"


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        (["--params", "10000", "--layers", "1", "2"], "--params 10000 --layers 1 2"),
        (["--learning-rate=1e-3", "--exact-params"], "--learning-rate=1e-3 --exact-params"),
        (["--results-dir", "mine"], "--results-dir mine"),
        (["--results-dir", "/home/me/some runs"], "--results-dir 'some runs'"),
        (["--results-dir=/home/me/a=b"], "--results-dir=a=b"),
        (["--results-dir", f"{ROOT}/runs/first"], "--results-dir runs/first"),
        ([f"--results-dir={ROOT}"], "--results-dir=."),
        (["--results-dir", "../../home/me/x"], "--results-dir x"),
    ],
)
def test_paths_of_this_machine_are_not_shown(flags, shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command_line([str(BINARY_SEARCH), *flags]) == f"binary_search.py {shown}"


def git(folder, *flags):
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    command = ["git", *identity, "-c", "commit.gpgsign=false", *flags]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def git_fields():
    entry = describe_run({}, "cpu", 1)
    return entry["commit"], entry["modified"]


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_commit_and_modification(tmp_path, monkeypatch):
    checkout = tmp_path / "checkout"
    (checkout / "results").mkdir(parents=True)
    for name in ("code.py", "results/log.csv"):
        (checkout / name).write_text("1\n")
    monkeypatch.setattr(run_record, "CHECKOUT", checkout)
    assert git_fields() == (None, None)
    git(tmp_path, "init")  # the repository around it is another project's
    assert git_fields() == (None, None)
    git(checkout, "init")
    assert git_fields() == (None, None)  # nothing committed
    git(checkout, "add", ".")
    git(checkout, "commit", "-m", "first")
    commit, modified = git_fields()
    assert re.fullmatch("[0-9a-f]{40,64}", commit)
    assert modified is False
    (checkout / "results" / "log.csv").write_text("1\n2\n")
    (checkout / "new.txt").write_text("not tracked")
    assert git_fields() == (commit, False)
    (checkout / "code.py").write_text("2\n")
    assert git_fields() == (commit, True)
    git(checkout, "worktree", "add", "../second")
    monkeypatch.setattr(run_record, "CHECKOUT", tmp_path / "second")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / ".git"))  # as in a hook
    assert git_fields() == (commit, False)


@pytest.mark.parametrize(
    "program", [None, "exit 3", "exec sleep 60", "echo nonsense", "printf '\\377\\n'"]
)
def test_a_git_that_is_missing_fails_or_hangs(program, tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    if program is not None:
        path = tmp_path / "git"
        path.write_text(f"#!/bin/sh\n{program}\n")
        path.chmod(0o755)
    monkeypatch.setattr(run_record, "CHECKOUT", tmp_path)
    monkeypatch.setattr(run_record, "GIT_SECONDS", 0.5)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin" if program == "exec sleep 60" else str(tmp_path))
    start = time.monotonic()
    assert git_fields() == (None, None)
    assert time.monotonic() - start < 5


def test_packages_without_metadata(tmp_path, monkeypatch):
    def missing(name):
        raise version.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(version.metadata, "version", missing)
    assert describe_run({}, "cpu", 1)["version"]  # from the checkout's own pyproject.toml
    monkeypatch.setattr(version, "CHECKOUT", tmp_path)
    entry = describe_run({}, "cpu", 1)
    assert entry["version"] is entry["torch"] is None


def test_no_torch_is_imported():
    program = """
import sys
from threshold_search.log.run_record import describe_run
assert describe_run({}, "cpu", 1)["torch_vectors"] is None
sys.exit("torch" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
