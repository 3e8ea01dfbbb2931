"""SIGTERM and SIGHUP end a run as Ctrl-C does; what is ignored stays ignored."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripts import BINARY_SEARCH, TRAIN_MLP

SLOW = ("--hidden-size", "200", "--layers", "3", "--learning-rate", "1e-6", "--min-delta", "0")
SEARCH = (*SLOW, "--model", "mlp", "--repeats", "4", "--workers", "2", "--results-dir", "out")
TRAIN = (*SLOW, "--num-sequences", "4000")
STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}


def start(script, flags, folder, ignored=()):
    """Start a script in a session of its own, with some signals ignored, as nohup does."""

    def prepare():
        for number in STATUS:
            signal.signal(number, signal.SIG_IGN if number in ignored else signal.SIG_DFL)

    return subprocess.Popen(
        [sys.executable, str(script), *flags],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=prepare,
        start_new_session=True,
    )


def members(process):
    """Return the running processes of the session that ``process`` leads."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == process.pid and fields[0] != "Z":
            found.append(int(name))
    return found


def wait_until(is_so, process):
    for _ in range(3000):
        if is_so():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    raise AssertionError("did not come to that")


def wait_for_workers(process, folder):
    log = folder / "out" / "mlp_probes.csv"
    wait_until(lambda: log.exists() and log.read_bytes().count(b"\n") > 3, process)
    return members(process)


@pytest.mark.parametrize("number", STATUS, ids=lambda number: number.name)
@pytest.mark.parametrize("whole_group", [False, True], ids=["driver", "group"])
def test_a_search_ends_in_one_line(number, whole_group, tmp_path):
    process = start(BINARY_SEARCH, SEARCH, tmp_path)
    assert len(wait_for_workers(process, tmp_path)) >= 3  # the driver and two workers
    (os.killpg if whole_group else os.kill)(process.pid, number)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == STATUS[number], stderr
    assert stdout == ""
    assert stderr.strip() == (
        "interrupted; every finished probe is in out, the same command continues from there"
    )
    for _ in range(250):  # workers and multiprocessing's own process leave with the driver
        if not members(process):
            return
        time.sleep(0.02)
    raise AssertionError(members(process))


@pytest.mark.parametrize("number", STATUS, ids=lambda number: number.name)
def test_training_ends_in_one_line(number, tmp_path):
    process = start(TRAIN_MLP, TRAIN, tmp_path)
    time.sleep(0.3)  # wherever that is: the imports, torch's among them, or the training
    for _ in range(200):
        if "libtorch" in Path(f"/proc/{process.pid}/maps").read_text():
            break
        time.sleep(0.02)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == STATUS[number], stderr
    assert (stdout, stderr.strip()) == ("", "interrupted")


def test_nohup_stays(tmp_path):
    process = start(BINARY_SEARCH, SEARCH, tmp_path, ignored=[signal.SIGHUP])
    wait_for_workers(process, tmp_path)
    log = tmp_path / "out" / "mlp_probes.csv"
    os.killpg(process.pid, signal.SIGHUP)
    before = log.read_bytes()
    wait_until(lambda: len(log.read_bytes()) > len(before), process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
