"""Too little memory: one configuration fails in one line, the others finish."""

import os
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from scripts import (
    BINARY_SEARCH,
    GENERATOR,
    ROOT,
    TRAIN_MLP,
    TRAIN_TRANSFORMER,
    children,
    command,
    run_here,
    run_script,
)

from engines import memory
from engines.engine import ReferenceEngine, StackedEngine
from engines.memory import available_memory, within_memory
from engines.native.load import load_engine
from mlp_experiments.mlp_utils import SPEC as MLP
from mlp_experiments.mlp_utils import MLPArchitecture
from training.errors import OutOfMemory
from training.probe import Probe

MEBI = 2**20
TOO_LARGE = 200_000_000  # units: 160 GB of weights
linux = pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
# What a search needs without its models: the address space of all its libraries.
NEEDED = """
import pandas, scipy.special, torch
import threshold_search.run, visualizations.report
from threshold_search.api import train_probe
from mlp_experiments.mlp_utils import MLPArchitecture
train_probe(MLPArchitecture(3, 1), n=2)
print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmPeak")))
"""


def log_lines(folder):
    return (folder / "mlp_probes.csv").read_text().splitlines()


def errors(stderr):
    """Return the lines of stderr without the one on a missing compiled engine."""
    return [line for line in stderr.splitlines() if not line.startswith("note: there is no")]


def run_limited(kind, limit, script, flags, folder):
    """Run a script whose process, and all it starts, have a limit of the system."""
    return subprocess.run(
        command(script, *flags),
        cwd=folder,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(kind, (limit, limit)),
    )


@linux
def test_the_others_finish_and_are_not_trained_again(tmp_path):
    """With a limit and a size that no memory holds; then without the limit."""
    needed = subprocess.run([sys.executable, "-c", NEEDED], capture_output=True, text=True)
    limit = 1024 * int(needed.stdout) + 150 * MEBI
    flags = ["--model", "mlp", "--layers", 1, "--repeats", 1, "--max-size", 2, "--workers", 1]
    flags += ["--max-epochs", 3, "--results-dir", tmp_path, "--hidden-size", 3, 100_000]
    ended = run_limited(resource.RLIMIT_AS, limit, BINARY_SEARCH, [*flags, TOO_LARGE, 4], tmp_path)
    assert ended.returncode == 1, ended.stderr
    names = [line.split()[1] for line in ended.stdout.splitlines() if line.startswith("mlp ")]
    assert names == ["3x1", "4x1"]
    assert errors(ended.stderr) == [
        "binary_search.py: error: not finished: "
        "mlp 100000x1 #0: not enough memory to train mlp 100000x1 on 2 sequences; "
        f"mlp {TOO_LARGE}x1 #0: not enough memory to train mlp {TOO_LARGE}x1 on "
        "2 sequences"
    ]
    before = log_lines(tmp_path)
    assert len(before) == 1 + 2 * 2
    ended = run_script(BINARY_SEARCH, *flags, 4, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert log_lines(tmp_path)[: len(before)] == before
    assert all(",100000,1," in line for line in log_lines(tmp_path)[len(before) :])


@linux
def test_a_worker_that_is_killed_again_and_again(tmp_path):
    flags = ["--model", "mlp", "--layers", 1, "--repeats", 1, "--workers", 1]
    flags += ["--results-dir", tmp_path, "--hidden-size", 3, 30_000, "--max-epochs", 3000]
    # Too slow to learn anything: the second is in training for a while.
    flags += ["--max-size", 2, "--patience", 0, "--learning-rate", 1e-9]
    process = subprocess.Popen(
        command(BINARY_SEARCH, *flags),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log, killed = tmp_path / "mlp_probes.csv", set()
    while process.poll() is None and len(killed) < 3:
        time.sleep(0.05)
        if log.exists() and log.read_text().count(",3,1,0,") == 2:  # the first is done
            for child in set(children(process)) - killed:
                os.kill(child, signal.SIGKILL)
                killed.add(child)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 1, stderr
    assert len([line for line in stdout.splitlines() if line.startswith("mlp ")]) == 1
    assert errors(stderr) == [
        "binary_search.py: error: not finished: mlp 30000x1 #0: a worker died 3 times "
        "training mlp 30000x1 on 2 sequences (killed: out of memory?)"
    ]
    assert len(log_lines(tmp_path)) == 3


@pytest.mark.parametrize(
    ("script", "flags"),
    [
        (TRAIN_MLP, "--hidden-size 9223372036854775807 --layers 3 --num-sequences 2"),
        (TRAIN_MLP, "--params 1000 --num-sequences 4000000000"),
        (TRAIN_TRANSFORMER, "--hidden-size 8 --heads 2 --d-ff 1000000000000 --num-sequences 2"),
        (GENERATOR, "--num-sequences 4000000000"),
        (GENERATOR, "--num-sequences 1 --seq-len 1000000000000"),
    ],
)
def test_one_line_and_status_1(script, flags, tmp_path, monkeypatch, capsys):
    flags = [*flags.split(), "--save", str(tmp_path / "w.npz")]
    status, stdout, stderr = run_here(script, flags, monkeypatch, capsys)
    assert (status, stdout) == (1, "")
    assert len(errors(stderr)) == 1 and "memory" in errors(stderr)[0], stderr
    assert not list(tmp_path.iterdir())


@linux
def test_torch_that_does_not_fit(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # the stacks of many would not fit either
    limit = 400 * MEBI
    ended = run_limited(resource.RLIMIT_AS, limit, TRAIN_MLP, ["--params", 1000], tmp_path)
    assert ended.returncode in (1, 2), ended.stderr
    assert len(errors(ended.stderr)) == 1 and "torch" in ended.stderr


def test_available_memory_of_the_machine_and_of_control_groups(tmp_path):
    root, own = tmp_path / "cgroup", tmp_path / "own"
    text = "MemTotal:  99999 kB\nMemAvailable:  1000 kB\nSwapFree: 24 kB\nHugePages: x\n"
    (tmp_path / "meminfo").write_text(text)
    own.write_text("4:memory:/a/b\n0::/c/d\n")
    for folder, limit, unlimited, used, prefix in (
        ("c", "max", "max", "current", ""),
        ("memory/a", "limit_in_bytes", str(2**63 - 4096), "usage_in_bytes", "total_"),
    ):
        cached = f"anon 7\ninactive_file 1\n{prefix}inactive_file 100\n{prefix}active_file 50\n"
        (root / folder).mkdir(parents=True)
        for name, text, expected in (
            (used, "300000", 1024 * 1024),
            (limit, unlimited, 1024 * 1024),
            (limit, "500000", 200_000),
            ("stat", cached, 200_150),  # cached files are given up for what asks
            (limit, "100", 0),
        ):
            (root / folder / f"memory.{name}").write_text(text + "\n")
            assert available_memory(tmp_path, root, own) == expected
        (root / folder / f"memory.{limit}").unlink()


@linux
def test_what_the_kernel_would_promise_fails_and_the_limit_is_lifted_again():
    before = resource.getrlimit(resource.RLIMIT_DATA)
    size = available_memory() // 8  # reserved, never touched: every piece fits, all do not
    with pytest.raises(MemoryError), within_memory():
        pieces = [np.empty(size, np.int8) for _ in range(9)]
        del pieces
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    with pytest.raises(MemoryError), within_memory(parameters=10**15):
        pytest.fail("was foreseen")
    with within_memory(parameters=30_000):
        np.ones(1000)


def test_a_published_size_is_never_refused(monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 0)
    probe = Probe(MLPArchitecture(49, 1), MLP.protocol(max_epochs=1), 0, 0, 8)
    [(outcome, _)] = ReferenceEngine().train([probe])
    assert outcome.epochs == 1


def probes(count):
    return [Probe(MLPArchitecture(3, 1), MLP.protocol(), 0, r, r + 1) for r in range(count)]


@pytest.mark.parametrize("fits", [3, 1, 0])
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory. Tried ...")])
def test_what_does_not_fit_together_trains_in_smaller_groups(fits, error, monkeypatch):
    def train(self, group, on_epoch):
        if len(group) > fits:
            raise error
        return [(probe.n, dict) for probe in group]

    monkeypatch.setattr(StackedEngine, "_train", train)
    if fits:
        assert [n for n, _ in StackedEngine().train(probes(5))] == [1, 2, 3, 4, 5]
    else:
        with pytest.raises(OutOfMemory, match="mlp 3x1 on 1 sequences"):
            StackedEngine().train(probes(5))


def test_another_runtime_error_is_none_of_memory(monkeypatch):
    def train(self, group, on_epoch):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(StackedEngine, "_train", train)
    with pytest.raises(RuntimeError, match="shapes"):
        StackedEngine().train(probes(2))


SIXTEEN = """
import resource
from engines.engine import NativeEngine, StackedEngine
from training.probe import Probe
from training.start import start_probe
from transformer_experiments.transformer_utils import SPEC, TransformerArchitecture

architecture = TransformerArchitecture(128, 175, 64, 3)  # 537,751 parameters
probes = [Probe(architecture, SPEC.protocol(max_epochs=1), 0, r, 64) for r in range(16)]
{train}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
NATIVE = """
starts = [start_probe(probe) for probe in probes]
NativeEngine().start(starts).train_epoch([next(start.epochs()) for start in starts])
"""


@linux
@pytest.mark.parametrize("train", ["StackedEngine().train(probes)", NATIVE])
def test_sixteen_models_of_the_largest_published_size_stay_below_4_gigabytes(train):
    if train is NATIVE and load_engine() is None:
        pytest.skip("no compiled engine")
    program = [sys.executable, "-c", SIXTEEN.format(train=train)]
    ended = subprocess.run(program, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) < 4e9
