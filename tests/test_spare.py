"""Spare CPUs: what others use is told from what our own jobs use."""

import math

import pytest

from threshold_search import spare


class Machine:
    """Four CPUs; the system averages over a minute what we and others run."""

    def __init__(self, monkeypatch, usable=4):
        self.now = self.load = 0.0
        monkeypatch.setattr(spare.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(spare.os, "getloadavg", lambda: (self.load, 0.0, 0.0), raising=False)
        monkeypatch.setattr(spare.os, "cpu_count", lambda: 4)
        monkeypatch.setattr(spare, "usable_cpus", lambda: usable)

    def run(self, cpus, jobs, seconds):
        """Let ``jobs`` be what the system counts for a while, ours of them noted every second."""
        for _ in range(seconds):
            cpus.note(jobs[0])
            self.now += 1.0
            self.load += (sum(jobs) - self.load) * (1 - math.exp(-1 / 60))


@pytest.mark.parametrize("seconds", [5, 60, 600])
@pytest.mark.parametrize("ours", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("others", [0, 1, 2, 6])
def test_there_is_a_spare_one_if_fewer_run_than_there_are(ours, others, seconds, monkeypatch):
    machine = Machine(monkeypatch)
    machine.load = float(others)  # they were there before
    cpus = spare.SpareCpus()
    machine.run(cpus, (ours, others), seconds)
    assert cpus.has_one(ours) == (ours + others < 4)


def test_no_more_than_this_process_may_use(monkeypatch):
    Machine(monkeypatch, usable=2)
    cpus = spare.SpareCpus()
    assert cpus.has_one(1) and not cpus.has_one(2)


def test_without_a_load_average_ours_alone_count(monkeypatch):
    Machine(monkeypatch)
    monkeypatch.delattr(spare.os, "getloadavg")
    cpus = spare.SpareCpus()
    assert cpus.has_one(3) and not cpus.has_one(4)


@pytest.mark.parametrize(("left", "enough"), [(None, True), (2**31, True), (2**28, False)])
def test_memory_for_a_process(left, enough, monkeypatch):
    monkeypatch.setattr(spare, "available_memory", lambda: left)
    assert spare.has_memory_for_a_process() == enough
