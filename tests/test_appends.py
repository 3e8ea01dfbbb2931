"""Writes that store only a part, or nothing: every append is whole or undone, and said."""

import json
import math
import os
import resource
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import limited_search
import pytest
from scripts import ROOT
from test_driver import InstantWorkers, outcome_of, run, searches

from command_line import files
from command_line.files import append_whole
from mlp_experiments.mlp_utils import SPEC as MLP_SPEC
from threshold_search.driver import drive
from threshold_search.log import probe_log
from threshold_search.log.layout import probe_layout
from threshold_search.log.reader import read_rows
from threshold_search.log.results_folder import ResultsFolder
from training.errors import UserError

NAMES = ("mlp_probes.csv", "mlp_results.csv")
RECORDS = ("runs.jsonl", "protocols.json")


def search(folder, *arguments, limit=resource.RLIM_INFINITY):
    """Search in a process whose files may have ``limit`` bytes."""
    return subprocess.run(
        [sys.executable, limited_search.__file__, str(folder), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        preexec_fn=lambda: resource.setrlimit(
            resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)
        ),
    )


def assert_one_line(ended, path, reason):
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.count("\n") == 1
    assert f"{path}: {reason}" in ended.stderr


def assert_whole(folder):
    """Everything in the folder can be read, and no temporary file is left."""
    log = folder / "mlp_probes.csv"
    if log.exists():
        assert log.read_bytes()[-1:] in (b"", b"\n")
        read_rows(log, probe_layout(MLP_SPEC))
    for line in (folder / "runs.jsonl").read_text().splitlines():
        json.loads(line)
    assert {path.name for path in folder.iterdir()} <= {*NAMES, *RECORDS, "results.lock"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder, InstantWorkers())
    return folder


def assert_same_results(folder, undisturbed):
    log, results = NAMES
    assert (folder / results).read_bytes() == (undisturbed / results).read_bytes()
    assert sorted((folder / log).open()) == sorted((undisturbed / log).open())


@pytest.mark.parametrize("room", [1, 40])
def test_a_limit_that_is_raised_in_mid_run(tmp_path, undisturbed, room):
    ended = search(tmp_path, room)
    log = tmp_path / "mlp_probes.csv"
    assert_one_line(ended, log, "File too large")
    assert_whole(tmp_path)
    assert log.read_text().count("\n") == 21
    run(tmp_path, InstantWorkers())
    assert_same_results(tmp_path, undisturbed)


def test_a_limit_that_is_raised_from_run_to_run(tmp_path, undisturbed):
    sizes = {name: (undisturbed / name).stat().st_size for name in NAMES}
    for limit, name in (
        (200, "runs.jsonl"),
        (1510, "mlp_probes.csv"),
        (sizes["mlp_probes.csv"] - 1, "mlp_probes.csv"),
    ):
        assert_one_line(search(tmp_path, limit=limit), tmp_path / name, "File too large")
        assert_whole(tmp_path)
    run(tmp_path, InstantWorkers())
    assert_same_results(tmp_path, undisturbed)


def test_a_results_file_that_does_not_fit(tmp_path, undisturbed):
    log, results = NAMES
    shutil.copy(undisturbed / log, tmp_path)
    ended = search(tmp_path, limit=(undisturbed / results).stat().st_size - 1)
    assert_one_line(ended, tmp_path / results, "File too large")
    assert {path.name for path in tmp_path.iterdir()} == {log, "results.lock"}
    run(tmp_path, InstantWorkers())
    assert_same_results(tmp_path, undisturbed)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root mounts")
def test_a_full_disk(tmp_path, undisturbed):
    mounted = tmp_path / "mounted"
    mounted.mkdir()

    def mount(options):
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(mounted)]
        return subprocess.run(command, capture_output=True).returncode == 0

    page = resource.getpagesize()
    if not mount(f"size={3 * page}"):
        pytest.skip("mounting is not allowed here")
    try:
        ended = search(mounted)
        assert ended.returncode == 2
        assert ended.stderr.count("\n") == 1
        assert f"{mounted}/mlp_" in ended.stderr and "No space left" in ended.stderr
        assert_whole(mounted)
        assert mount(f"remount,size={100 * page}")
        run(mounted, InstantWorkers())
        assert_same_results(mounted, undisturbed)
    finally:
        subprocess.run(["umount", str(mounted)], check=True)


def test_short_writes_are_completed(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(files.os, "write", lambda number, data: write(number, data[:3]))
    path = tmp_path / "log"
    append_whole(path, b"a first row\n")
    append_whole(path, b"another\n")
    assert path.read_bytes() == b"a first row\nanother\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_what_cannot_be_completed_is_undone(tmp_path, monkeypatch, error):
    path = tmp_path / "log"
    path.write_bytes(b"kept\n")
    write, calls = os.write, []

    def short(number, data):
        calls.append(data)
        if len(calls) == 1:
            return write(number, data[:4])
        raise error

    monkeypatch.setattr(files.os, "write", short)
    with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else UserError) as raised:
        append_whole(path, b"a row\n")
    assert path.read_bytes() == b"kept\n"
    if raised.type is UserError:
        assert str(raised.value) == f"cannot write to {path}: No space left on device"


def test_the_log_may_be_a_link_or_a_pipe(tmp_path):
    target = tmp_path / "elsewhere"
    (tmp_path / "mlp_probes.csv").symlink_to(target)
    run(tmp_path, InstantWorkers())
    assert (tmp_path / "mlp_probes.csv").is_symlink()
    assert target.read_text().startswith(probe_layout(MLP_SPEC).header)
    (tmp_path / "null").mkdir()
    (tmp_path / "null" / "mlp_probes.csv").symlink_to(os.devnull)
    run(tmp_path / "null", InstantWorkers())
    assert Path(os.devnull).is_char_device()
    assert (tmp_path / "null" / NAMES[1]).read_bytes() == (tmp_path / NAMES[1]).read_bytes()


def probe_and_outcome(n):
    probe = searches(repeats=1)[0].probe(n)
    return probe, outcome_of(probe)


@pytest.fixture
def synced(monkeypatch):
    """What is synced, by kind and size: folders have none that counts."""
    calls = []

    def fsync(descriptor):
        found = os.fstat(descriptor)
        calls.append("folder" if stat.S_ISDIR(found.st_mode) else found.st_size)

    monkeypatch.setattr(files.os, "fsync", fsync)
    return calls


def test_the_disk_stores_the_log_at_most_twice_a_second_and_at_the_end(
    tmp_path, monkeypatch, synced
):
    now = [100.0]
    monkeypatch.setattr(probe_log.time, "monotonic", lambda: now[0])
    log = tmp_path / "mlp_probes.csv"
    with ResultsFolder(tmp_path, [MLP_SPEC]) as folder:
        assert folder.sync() == math.inf
        waits = []
        for n in range(1, 22):  # rows 0.125 seconds apart
            folder.logs["mlp"].append([probe_and_outcome(n)])
            waits.append(folder.sync())
            now[0] += 0.125
        _, first, name, *others = synced  # after the record of protocols
        assert waits[:6] == [math.inf, 0.375, 0.25, 0.125, math.inf, 0.375]
        assert name == "folder" and len(others) == 5  # the name of a new file is stored once
        assert first < others[0] < others[-1] <= log.stat().st_size
        folder.logs["mlp"].append([probe_and_outcome(22)])
    assert synced[-1] == log.stat().st_size
    synced.clear()
    with ResultsFolder(tmp_path, [MLP_SPEC]) as folder:
        folder.logs["mlp"].append([probe_and_outcome(23)])
    assert synced == [log.stat().st_size]  # its name is there


def test_a_search_syncs_as_it_goes(tmp_path, synced):
    with ResultsFolder(tmp_path, [MLP_SPEC]) as folder:
        drive(searches(repeats=1), folder, InstantWorkers())
        assert "folder" in synced
