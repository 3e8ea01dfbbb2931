"""How many CPUs are ours: affinity, quotas of control groups, what a scheduler grants."""

import os
import subprocess
import sys

import pytest

from engines.cpu import usable_cpus
from threshold_search import run

SLURM = "SLURM_CPUS_PER_TASK"


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Return a function that makes control groups; the machine has 64 CPUs, all of them ours."""
    monkeypatch.delenv(SLURM, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)

    def made(own, files):
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "root" / name).write_text(text)
        return usable_cpus(tmp_path / "root", tmp_path / "own")

    return made


V2 = "0::/user.slice/job 1\n"
V1 = "5:memory:/job\n4:cpu,cpuacct:/job\n0::/\n"
OWN = "user.slice/job 1/cpu.max"


@pytest.mark.parametrize(
    ("own", "files", "count"),
    [
        ("", {}, 64),
        (V2, {OWN: "max 100000\n"}, 64),
        (V2, {OWN: "50000 100000\n"}, 1),  # half a CPU
        (V2, {OWN: "150000 100000\n"}, 2),  # rounded up
        (V2, {OWN: "9900000 100000\n"}, 64),  # more than there are
        (V2, {OWN: "900000 100000\n", "user.slice/cpu.max": "300000 100000\n"}, 3),  # above
        (V2, {"cpu.max": "200000 100000\n"}, 2),  # in a container the topmost is the process's
        ("0::/../../elsewhere\n", {"cpu.max": "200000 100000\n"}, 2),
        (V1, {"cpu/job/cpu.cfs_quota_us": "250000", "cpu/job/cpu.cfs_period_us": "100000"}, 3),
        (V1, {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "50000"}, 2),
        (V1, {"cpu/job/cpu.cfs_quota_us": "-1", "cpu/job/cpu.cfs_period_us": "100000"}, 64),
        (V1, {"memory/job/cpu.max": "100000 100000\n"}, 64),  # not a group of CPUs
    ],
)
def test_quotas(tree, own, files, count):
    assert tree(own, files) == count


def test_the_smallest_counts(tree, monkeypatch):
    for granted, count in (("3", 3), ("200", 64), ("", 64), ("many", 64)):
        monkeypatch.setenv(SLURM, granted)
        assert tree("", {}) == count
    monkeypatch.setenv(SLURM, "6")
    assert tree(V2, {"cpu.max": "500000 100000\n"}) == 5
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 9})
    assert tree(V2, {}) == 2


def test_it_is_the_default_number_of_workers(monkeypatch):
    monkeypatch.setattr(run, "usable_cpus", lambda: 7)
    assert run._default_workers("cpu") == 7
    assert run._default_workers("cuda") == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity here")
def test_real_affinity():
    one = {min(os.sched_getaffinity(0))}
    ended = subprocess.run(
        [sys.executable, "-c", "from engines.cpu import usable_cpus; print(usable_cpus())"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, one),
    )
    assert ended.stdout == "1\n", ended.stderr
