"""Success rates at fixed sizes: the script, its log, and the intervals."""

import pandas as pd
import pytest
from scripts import ROOT, run_script
from statsmodels.stats.proportion import proportion_confint
from test_driver import SmallMemory

from mlp_experiments.mlp_utils import MLPArchitecture
from threshold_search.options import EXECUTORS, Options
from threshold_search.questions.trial import Trial
from threshold_search.run import run_searches
from visualizations.results import load_probes
from visualizations.success import success_rates

SCRIPT = ROOT / "threshold_search" / "success_rate.py"
MODEL = ("--model", "mlp", "--hidden-size", "8", "--layers", "1")
FLAGS = (*MODEL, "--repeats", "6", "--workers", "2")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rates")
    flags = (*FLAGS, "--num-sequences", "4", "30", "--results-dir", folder)
    return folder, flags, run_script(SCRIPT, *flags, cwd=folder)


def test_every_repeat_is_trained_once(measured):
    folder, flags, ended = measured
    assert ended.returncode == 0, ended.stderr
    rows = load_probes(folder)
    assert sorted(zip(rows["n"], rows["repeat"], strict=True)) == [
        (n, repeat) for n in (4, 30) for repeat in range(6)
    ]
    assert not (folder / "mlp_results.csv").exists()
    log = (folder / "mlp_probes.csv").read_bytes()
    again = run_script(SCRIPT, *flags, cwd=folder)
    assert (again.returncode, again.stdout) == (0, ended.stdout)
    assert (folder / "mlp_probes.csv").read_bytes() == log
    assert len((folder / "runs.jsonl").read_text().splitlines()) == 1


def test_the_table_counts_them(measured):
    folder, _, ended = measured
    rows = load_probes(folder)
    for line in ended.stdout.splitlines()[1:]:
        name, rest = line.split(")", 1)
        n, probes, memorized, share, low, _, high = rest.split()
        of_size = rows[rows["n"] == int(n)]
        assert name.strip() == "mlp 8x1 (paper"
        assert (int(probes), int(memorized)) == (6, of_size["memorized"].sum())
        expected = proportion_confint(int(memorized), 6, method="wilson")
        assert [float(low), float(high)] == pytest.approx(expected, abs=6e-4)
        assert float(share) == pytest.approx(int(memorized) / 6, abs=6e-4)


def test_a_search_finds_the_probes(measured):
    folder, _, _ = measured
    trained = len(load_probes(folder))
    script = ROOT / "threshold_search" / "binary_search.py"
    flags = (*MODEL, "--repeats", "1", "--max-size", "4", "--results-dir", folder)
    ended = run_script(script, *flags, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    rows = load_probes(folder)
    assert len(rows) <= trained + 2  # of repeat 0, sizes 1 to 3; size 4 was there
    assert not rows.duplicated(["repeat", "n"]).any()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), "--num-sequences"),
        (("--num-sequences", "0"), "at least 1"),
        (("--num-sequences", "5000000001"), "at most 5000000000"),
        (("--num-sequences", "4", "--paper"), "--paper fixes"),
    ],
)
def test_bad_flags_are_one_line(tmp_path, flags, words):
    ended = run_script(SCRIPT, *FLAGS, *flags, "--results-dir", tmp_path / "r", cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert words in ended.stderr and ended.stderr.count("\n") == 1
    assert not (tmp_path / "r").exists()


def test_memory_is_short_for_the_large_ones_alone(tmp_path, monkeypatch):
    workers = SmallMemory(largest=1000, count=1)
    monkeypatch.setitem(EXECUTORS, "small", lambda *_: workers)
    architecture = MLPArchitecture(8, 1)
    trials = [
        Trial(architecture, architecture.spec.paper, 1, repeat=repeat, n=n)
        for n in (4, 5000, 9000)
        for repeat in range(3)
    ]
    finished = run_searches(trials, Options(executor="small", results_dir=tmp_path))
    done = [(p.n, p.repeat) for state in finished.states for p, _ in state.taken]
    assert done == [(4, 0), (4, 1), (4, 2)]
    failed = [state.question.n for state in finished.states if state.failure == "too large"]
    assert failed == [5000] * 3 + [9000] * 3
    assert finished.failures == "not finished: mlp 8x1 #0 #1 #2: too large"
    # The first job again, one by one; of what is too large one alone, and then no more.
    assert workers.sizes == [[4, 4, 4, 5000, 5000], [4], [4], [4], [5000]]


def test_groups_are_told_apart_by_all_but_the_repeat():
    rows = pd.DataFrame(
        {
            "protocol": ["a", "a", "b", "a"],
            "repeat": [0, 1, 0, 0],
            "seed": 0,
            "n": [5, 5, 5, 6],
            "memorized": [True, False, True, False],
        }
    )
    table = success_rates(rows)
    assert table[["protocol", "n", "probes", "memorized"]].to_numpy().tolist() == [
        ["a", 5, 2, 1],
        ["b", 5, 1, 1],
        ["a", 6, 1, 0],
    ]
    assert table["low"].between(0, table["share"]).all()
    assert table["high"].between(table["share"], 1).all()
