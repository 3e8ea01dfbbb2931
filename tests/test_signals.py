"""SIGTERM and SIGHUP end a run as Ctrl-C does; what is ignored stays ignored."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from scripts import BINARY_SEARCH, GENERATOR, TRAIN_MLP

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


# Ctrl-C, to the whole group, is in tests/test_end_to_end.py.
@pytest.mark.parametrize(
    ("number", "whole_group"),
    [(signal.SIGTERM, True), (signal.SIGHUP, False)],
    ids=["SIGTERM to the group", "SIGHUP to the driver"],
)
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


def test_nohup_stays_and_several_signals_are_one_end(tmp_path):
    process = start(BINARY_SEARCH, SEARCH, tmp_path, ignored=[signal.SIGHUP])
    wait_for_workers(process, tmp_path)
    log = tmp_path / "out" / "mlp_probes.csv"
    os.killpg(process.pid, signal.SIGHUP)
    before = log.read_bytes()
    wait_until(lambda: len(log.read_bytes()) > len(before), process)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        os.killpg(process.pid, number)
        time.sleep(0.01)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 143
    assert stderr.strip().count("\n") == 0
    assert "the same command continues" in stderr


# Sends this process a signal when it is about to import a module.
DURING_IMPORT = """
import os, runpy, signal, sys
name, sent = sys.argv[1].split()

class Finder:
    def find_spec(self, found, path=None, target=None):
        if found == name:
            os.kill(os.getpid(), int(sent))

sys.meta_path.insert(0, Finder())
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_DFL if number != signal.SIGINT else signal.default_int_handler)
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def interrupted_at(module, number, script, *flags):
    ended = subprocess.run(
        [sys.executable, "-c", DURING_IMPORT, f"{module} {int(number)}", str(script), *flags],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_script_that_is_still_being_imported(number):
    ended = interrupted_at("numpy", number, GENERATOR, "--help")
    assert ended == (STATUS[number], "", "\ninterrupted\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_while_torch_is_imported(number, tmp_path):
    """It counts once torch is there; a search says how to go on."""
    flags = ["--model", "mlp", "--hidden-size", "2", "--layers", "1", "--repeats", "1"]
    flags += ["--results-dir", str(tmp_path / "out")]
    status, stdout, stderr = interrupted_at("torch", number, BINARY_SEARCH, *flags)
    assert (status, stdout) == (STATUS[number], "")
    assert stderr.strip().count("\n") == 0
    assert "the same command continues" in stderr


def test_a_reader_that_takes_its_time_can_be_left(tmp_path):
    """The pipe is full: the interpreter must not wait for it either when it ends."""
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [sys.executable, str(GENERATOR), "--num-sequences", "20000"],
        cwd=tmp_path,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    )
    os.close(writing)
    try:
        wait_until(lambda: select.select([reading], [], [], 0)[0], process)
        time.sleep(1)  # to fill the pipe
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=20)
    finally:
        os.close(reading)
    assert (process.returncode, stderr) == (143, "\ninterrupted\n")


def test_a_signal_reaches_a_search_in_another_thread_as_ever():
    """Handlers belong to the main thread: a worker started in another must not ask for one."""
    program = (
        "import threading\n"
        "from command_line.interrupts import interrupts_held_back\n"
        "def body():\n"
        "    with interrupts_held_back():\n"
        "        print('held')\n"
        "thread = threading.Thread(target=body); thread.start(); thread.join()\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("held\n", "")
