"""The search script as a process: kill, resume, number of workers, two drivers, Ctrl-C."""

import os
import signal
import subprocess
import time

import pandas as pd
import pytest
from scripts import BINARY_SEARCH, ROOT, command, results_without_seconds, run_script

# Some seconds of work in some hundred real probes.
QUICK = "--model mlp --params 10000 --layers 2 3"


def search(folder, workers=2, repeats=3):
    return ["--results-dir", folder, "--workers", workers, *QUICK.split(), "--repeats", repeats]


def probes_without_seconds(folder):
    return set(results_without_seconds(folder / "mlp_probes.csv"))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    ended = run_script(BINARY_SEARCH, *search(folder), cwd=folder)
    assert ended.returncode == 0, ended.stderr
    # Quiet when not a terminal, but for the note where there is no compiled engine.
    assert all(line.startswith("note: there is no") for line in ended.stderr.splitlines())
    assert "published mean" in ended.stdout
    return folder


def test_one_worker_or_two(uninterrupted, tmp_path):
    ended = run_script(BINARY_SEARCH, *search(tmp_path, workers=1), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    name = "mlp_results.csv"
    assert results_without_seconds(tmp_path / name) == results_without_seconds(uninterrupted / name)
    assert probes_without_seconds(tmp_path) == probes_without_seconds(uninterrupted)


def test_more_repeats_leave_the_others_as_they_are(uninterrupted, tmp_path):
    ended = run_script(BINARY_SEARCH, *search(tmp_path, repeats=5), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert probes_without_seconds(uninterrupted) < probes_without_seconds(tmp_path)


def wait_for_rows(log, count, process):
    while not log.exists() or log.read_bytes().count(b"\n") <= count:
        assert process.poll() is None, "ended before it could be interrupted"
        time.sleep(0.02)


def listen_to_ctrl_c():
    """Undo what the shell of a background job does: its children inherit an ignored SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def running_search(folder):
    return subprocess.Popen(
        command(BINARY_SEARCH, *search(folder)),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=listen_to_ctrl_c,
    )


def test_killed_and_resumed(uninterrupted, tmp_path):
    log = tmp_path / "mlp_probes.csv"
    for rows in (3, 20):
        process = running_search(tmp_path)
        wait_for_rows(log, rows, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    before = log.read_bytes().rpartition(b"\n")[0]
    ended = run_script(BINARY_SEARCH, *search(tmp_path), cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert log.read_bytes().startswith(before)
    assert probes_without_seconds(tmp_path) == probes_without_seconds(uninterrupted)
    probes = pd.read_csv(log)
    identity = list(probes.columns[: probes.columns.get_loc("n") + 1])
    assert not probes.duplicated(identity).any(), "a finished probe was repeated"
    name = "mlp_results.csv"
    assert results_without_seconds(tmp_path / name) == results_without_seconds(uninterrupted / name)


@pytest.mark.parametrize("rows", [None, 0, 2], ids=["at once", "workers start", "in training"])
def test_ctrl_c_ends_quickly_and_says_how_to_continue(tmp_path, rows):
    process = running_search(tmp_path)
    if rows is None:
        while not (tmp_path / "results.lock").exists():
            time.sleep(0.02)
    else:
        wait_for_rows(tmp_path / "mlp_probes.csv", rows, process)
    start = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the driver and its workers
    _, stderr = process.communicate(timeout=20)
    assert time.monotonic() - start < 5
    assert process.returncode == 130
    assert "same command continues" in stderr
    assert "Traceback" not in stderr


def test_two_drivers_on_one_folder(uninterrupted, tmp_path):
    first, second = running_search(tmp_path), running_search(tmp_path)
    errors = [process.communicate(timeout=300)[1] for process in (first, second)]
    assert first.returncode == second.returncode == 0
    assert "waiting" in "".join(errors)
    probes = pd.read_csv(tmp_path / "mlp_probes.csv")
    identity = list(probes.columns[: probes.columns.get_loc("n") + 1])
    assert not probes.duplicated(identity).any()
    name = "mlp_results.csv"
    assert results_without_seconds(tmp_path / name) == results_without_seconds(uninterrupted / name)


def test_a_lost_worker_costs_one_probe(uninterrupted, tmp_path):
    process = running_search(tmp_path)
    wait_for_rows(tmp_path / "mlp_probes.csv", 3, process)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid), "-f", "spawn_main"], capture_output=True, text=True
    )
    subprocess.run(["kill", "-9", children.stdout.split()[0]], check=True)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    name = "mlp_results.csv"
    assert results_without_seconds(tmp_path / name) == results_without_seconds(uninterrupted / name)


def test_a_logged_probe_can_be_trained_again(uninterrupted):
    import json

    row = pd.read_csv(uninterrupted / "mlp_probes.csv").iloc[-1]
    flags = [f"--num-sequences={row.n}", f"--repeat={row['repeat']}", f"--layers={row.num_layers}"]
    flags += ["--params=10000", "--json"]
    script = ROOT / "mlp_experiments" / "train_mlp.py"
    ended = run_script(script, *flags, cwd=uninterrupted)
    assert ended.returncode == 0, ended.stderr
    summary = json.loads(ended.stdout)
    columns = "bits num_parameters n memorized accuracy loss epochs stop_reason"
    for column in columns.split():
        assert summary[column] == row[column]
