"""The simulation of benchmarks/scaling.py: its clock, its failures, its fits, and a whole study."""

import random

import numpy as np
import pandas as pd
import pytest
from logged_probes import Fit, LoggedProbes, fit
from scaling import draw, simulate
from scripts import ROOT
from simulated_workers import REPAIR_SECONDS, WORKERS_PER_NODE, SimulatedWorkers
from test_driver import PAPER, outcome_of

from mlp_experiments.mlp_utils import MLPArchitecture
from threshold_search.plan import searches as plan_searches
from training.probe import Probe

ONE = MLPArchitecture(49, 1)


def probe(n):
    return Probe(ONE, PAPER, 0, 0, n)


def drain(workers, probes):
    """Train everything; return when each ended."""
    waiting, ended = list(probes), {}
    while len(ended) < len(probes):
        while waiting and workers.has_idle:
            workers.submit([waiting.pop(0)])
        for found, _ in workers.wait(1.0):
            ended[found] = workers.now
    return ended


@pytest.mark.parametrize("count", [1, 3, 16, 40])
def test_equal_probes_end_in_rounds(count):
    ended = drain(SimulatedWorkers(count, outcome_of), [probe(n) for n in range(1, 101)])
    assert list(ended.values()) == [0.5 * (1 + i // count) for i in range(100)]


def test_a_failed_node_loses_its_jobs_and_comes_back():
    workers = SimulatedWorkers(2 * WORKERS_PER_NODE, outcome_of, failures=3600 / 0.4, seed=1)
    probes = [probe(n) for n in range(1, 201)]
    ended = drain(workers, probes)
    assert workers.lost > 0 and sorted(p.n for p in ended) == list(range(1, 201))
    assert sorted(p.n for p in workers.trained) == list(range(1, 201))  # each ends once
    # Both nodes fail every half a second or so, and are away for ten minutes then.
    assert workers.now > REPAIR_SECONDS


def test_a_cancelled_probe_never_ends():
    workers = SimulatedWorkers(2, outcome_of)
    workers.submit([probe(1)])
    workers.submit([probe(2)])
    workers.cancel(probe(1))
    assert workers.has_idle
    assert [found.n for found, _ in workers.wait(1.0)] == [2]


def test_a_fit_finds_what_the_rows_were_drawn_from():
    true = Fit(middle=8.0, width=0.2, time=(-3.0, 1.2, -0.4), noise=0.3)
    draw_from = random.Random(1)
    sizes = np.exp2(np.linspace(6, 10, 2000)).astype(int)
    drawn = [true.draw(int(n), draw_from) for n in sizes]
    rows = pd.DataFrame({"n": sizes, "memorized": [m for m, _ in drawn]})
    found = fit(rows.assign(seconds=[s for _, s in drawn]))
    assert found.middle == pytest.approx(true.middle, abs=0.05)
    assert found.width == pytest.approx(true.width, rel=0.15)
    assert found.time == pytest.approx(true.time, abs=0.15)
    assert found.noise == pytest.approx(true.noise, rel=0.1)


def test_logged_probes_answer_as_they_did_and_others_as_always():
    probes = LoggedProbes(ROOT / "results", [ONE, MLPArchitecture(48, 1)])
    assert probes.borrowed == [MLPArchitecture(48, 1)]
    log = pd.read_csv(ROOT / "results" / "mlp_probes.csv")
    rows = log[(log.hidden_size == 49) & (log.protocol == "paper") & (log.num_layers == 1)]
    for row in rows.itertuples():
        asked = Probe(ONE, PAPER, 0, row.repeat, row.n)
        assert probes.is_logged(asked)
        found = probes.answer(asked)
        assert (found.memorized, found.seconds) == (row.memorized, row.seconds)
    other = Probe(ONE, PAPER, 0, 77, 512)
    assert not probes.is_logged(other)
    again = LoggedProbes(ROOT / "results", [ONE])
    assert again.answer(other).seconds == probes.answer(other).seconds


def test_a_small_study():
    wanted = plan_searches([(ONE, PAPER, 10_000), (MLPArchitecture(41, 2), PAPER, 10_000)], 24)
    probes = LoggedProbes(ROOT / "results", [s.architecture for s in wanted])
    cases = [
        (1, False, 0.0),
        (4, False, 0.0),
        (64, False, 0.0),
        (64, True, 0.0),
        (64, True, 2000.0),
    ]
    rows, results = zip(*(simulate(wanted, probes, *case) for case in cases), strict=True)
    assert all(found == results[0] for found in results)
    alone, four, many, guessing, failing = rows
    assert alone["efficiency"] == pytest.approx(1)
    assert alone["makespan_hours"] > four["makespan_hours"] > many["makespan_hours"]
    assert many["makespan_hours"] > guessing["makespan_hours"]
    assert guessing["probes_trained"] > many["probes_trained"] == many["probes_counted"]
    assert failing["jobs_lost"] > 0
    assert 0 < alone["drawn_share"] < 0.5
    assert draw(pd.DataFrame(rows)).axes
