"""The driver, the log and the results folder, with workers that need no training."""

import dataclasses
import itertools
import os
import signal
import threading
import time
import zlib

import pandas as pd
import pytest

from command_line.interrupts import interrupts_held_back
from mlp_experiments.mlp_utils import SPEC as MLP_SPEC
from mlp_experiments.mlp_utils import MLPArchitecture, solve
from threshold_search.driver import drive
from threshold_search.log.layout import probe_layout, result_layout
from threshold_search.log.results_folder import ResultsFolder
from threshold_search.questions.bisection import Bisection
from training.errors import OutOfMemory
from training.probe import BITS_VERSION, Outcome
from transformer_experiments.transformer_utils import SPEC as TRANSFORMER_SPEC
from transformer_experiments.transformer_utils import TransformerArchitecture

PAPER = MLP_SPEC.protocol()


class InstantWorkers:
    """Answers with a threshold that depends on the probe; ``dies_after`` probes it raises."""

    def __init__(self, count=2, dies_after=None, newest_first=False):
        self.count, self.dies_after, self.newest_first = count, dies_after, newest_first
        self.running, self.trained = [], []

    nodes = staticmethod(list)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    @property
    def has_idle(self):
        return len(self.running) < self.count

    def largest_job(self, kind):
        return 1

    def submit(self, job):
        assert not set(job) & set(self.running)
        assert len({probe.kind for probe in job}) == 1
        self.running += job

    def wait(self, timeout):
        if self.dies_after is not None and len(self.trained) >= self.dies_after:
            raise KeyboardInterrupt
        probe = self.running.pop(-1 if self.newest_first else 0)
        self.trained.append(probe)
        return [(probe, outcome_of(probe))]


def true_threshold(probe):
    identity = f"{probe.architecture}{probe.protocol}{probe.seed}{probe.repeat}"
    return zlib.crc32(identity.encode()) % 150


def outcome_of(probe):
    memorized = probe.n <= true_threshold(probe)
    reason = "perfect" if memorized else "max_epochs"
    return Outcome(memorized, 1.0 if memorized else 0.5, 0.25, 7, reason, 0.5)


def searches(repeats=3, max_size=None, depths=(0, 1, 2)):
    return [
        Bisection(solve(budget, depth), PAPER, budget, repeat=r, max_size=max_size)
        for budget in (10_000, 30_000)
        for depth in depths
        for r in range(repeats)
    ]


def run(folder, workers, wanted=None):
    with ResultsFolder(folder, [MLP_SPEC]) as results:
        return drive(wanted or searches(), results, workers)


def test_results_are_the_thresholds(tmp_path):
    states = run(tmp_path, InstantWorkers())
    rows = pd.read_csv(tmp_path / "mlp_results.csv")
    assert list(rows.columns) == result_layout(MLP_SPEC).columns
    assert len(rows) == len(states) == 18
    for state in states:
        assert state.bounds.threshold == true_threshold(
            state.question.probe(1, state.question.repeat)
        )
    assert (rows.first_failure == rows.threshold + 1).all()
    log = pd.read_csv(tmp_path / "mlp_probes.csv")
    assert list(log.columns) == probe_layout(MLP_SPEC).columns
    assert rows.probes.sum() >= len(log)


def test_configurations_end_one_by_one(tmp_path):
    workers = InstantWorkers(count=1)
    states = run(tmp_path, workers)
    kinds = [kind for kind, _ in itertools.groupby(probe.kind for probe in workers.trained)]
    assert kinds == list(dict.fromkeys(state.question.kind for state in states))


def test_csv_columns_are_the_documented_ones():
    leading = (
        "model,protocol,bits,budget,task,vocab_size,seq_len,label_vocab_size,label_len,"
        "num_parameters,hidden_size,d_ff,num_heads,num_layers,"
    )
    tail = "repeat,seed,threshold,first_failure,max_epoch_reached,probes,seconds"
    assert result_layout(TRANSFORMER_SPEC).header == leading + tail
    probe_tail = "repeat,seed,n,memorized,accuracy,loss,epochs,stop_reason,seconds"
    assert probe_layout(TRANSFORMER_SPEC).header == leading.replace("budget,", "") + probe_tail


def test_equal_architectures_share_probes(tmp_path):
    workers = InstantWorkers()
    run(tmp_path, workers)
    assert len(set(workers.trained)) == len(workers.trained)
    rows = pd.read_csv(tmp_path / "mlp_results.csv")
    depth_0 = rows[rows.num_layers == 0].pivot(index="repeat", columns="budget", values="threshold")
    assert (depth_0[10_000] == depth_0[30_000]).all()
    trained_0 = {p for p in workers.trained if p.architecture.num_layers == 0}
    assert len(trained_0) == rows[(rows.num_layers == 0) & (rows.budget == 10_000)].probes.sum()


@pytest.mark.parametrize("dies_after", [0, 1, 5, 40])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_interruption_and_any_workers_give_the_same_results(tmp_path, dies_after, count):
    run(tmp_path / "whole", InstantWorkers())
    first = InstantWorkers(count, dies_after, newest_first=True)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", first)
    second = InstantWorkers(count)
    run(tmp_path / "cut", second)
    assert not set(first.trained) & set(second.trained), "a finished probe was repeated"
    name = "mlp_results.csv"
    assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    again = InstantWorkers()
    run(tmp_path / "cut", again)
    assert again.trained == []


def test_torn_last_line_is_dropped_and_reported(tmp_path, capsys):
    run(tmp_path, InstantWorkers())
    log = tmp_path / "mlp_probes.csv"
    results = (tmp_path / "mlp_results.csv").read_bytes()
    whole = log.read_bytes()
    for cut in range(1, len(whole.splitlines(keepends=True)[-1])):
        log.write_bytes(whole[:-cut])
        workers = InstantWorkers()
        run(tmp_path, workers)
        assert "unfinished last line" in capsys.readouterr().err
        assert len(workers.trained) == 1
        assert sorted(log.read_bytes().splitlines()) == sorted(whole.splitlines())
    assert (tmp_path / "mlp_results.csv").read_bytes() == results


@pytest.mark.parametrize("length", [0, 1, 20])
def test_torn_header(tmp_path, length):
    header = probe_layout(MLP_SPEC).header
    (tmp_path / "mlp_probes.csv").write_text(header[:length])
    run(tmp_path, InstantWorkers())
    assert (tmp_path / "mlp_probes.csv").read_text().startswith(header + "\n")


def test_changed_protocol_never_mixes(tmp_path):
    run(tmp_path, InstantWorkers())
    changed = [dataclasses.replace(s, protocol=MLP_SPEC.protocol(patience=5)) for s in searches()]
    workers = InstantWorkers()
    run(tmp_path, workers, changed)
    assert {p.protocol.patience for p in workers.trained} == {5}
    rows = pd.read_csv(tmp_path / "mlp_results.csv")
    assert rows.protocol.value_counts().to_dict() == {"paper": 18, "paper patience=5": 18}


@pytest.mark.parametrize("other", [BITS_VERSION - 1, BITS_VERSION + 1])
def test_probes_of_another_bits_version_are_kept_but_not_reused(tmp_path, other):
    first = InstantWorkers()
    run(tmp_path, first)
    log, results = tmp_path / "mlp_probes.csv", tmp_path / "mlp_results.csv"
    for path in (log, results):
        path.write_text(path.read_text().replace(f"paper,{BITS_VERSION},", f"paper,{other},"))
    old = {path: path.read_text().splitlines() for path in (log, results)}
    second = InstantWorkers()
    run(tmp_path, second)
    assert set(second.trained) == set(first.trained)
    assert log.read_text().splitlines()[: len(old[log])] == old[log]
    assert set(old[results]) < set(results.read_text().splitlines())
    rows = pd.read_csv(results)
    assert rows.bits.value_counts().to_dict() == {other: 18, BITS_VERSION: 18}
    third = InstantWorkers()
    run(tmp_path, third)
    assert third.trained == []


def test_bits_versions_may_contradict_each_other(tmp_path, capsys):
    run(tmp_path, InstantWorkers())
    log = tmp_path / "mlp_probes.csv"
    row = next(line for line in log.read_text().splitlines() if ",False,0.5," in line)
    contrary = row.replace(",False,0.5,", ",True,1.0,") + "\n"
    other = contrary.replace(f"paper,{BITS_VERSION},", f"paper,{BITS_VERSION - 1},")
    log.write_text(log.read_text() + other)
    run(tmp_path, InstantWorkers())
    assert "contradicting" not in capsys.readouterr().err
    log.write_text(log.read_text() + contrary)
    run(tmp_path, InstantWorkers())
    count = len(log.read_text().splitlines()) - 3  # header, another version, a probe's second row
    assert f"1 of {count + 1} probes have rows with contradicting" in capsys.readouterr().err


def test_which_of_two_contradicting_rows_counts_does_not_depend_on_their_order(tmp_path):
    whole = tmp_path / "whole"
    run(whole, InstantWorkers())
    header, *rows = (whole / "mlp_probes.csv").read_text().splitlines()
    contrary = [
        row.replace(",False,0.5,", ",True,1.0,")
        if ",False," in row
        else row.replace(",0.5", ",9.5")
        for row in rows
    ]
    results = set()
    for order in (rows + contrary, contrary + rows, [*contrary[::-1], *rows], rows + contrary * 2):
        folder = tmp_path / str(len(results)) / str(len(order))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "mlp_probes.csv").write_text("\n".join([header, *order]) + "\n")
        workers = InstantWorkers()
        run(folder, workers)
        assert workers.trained == []
        results.add((folder / "mlp_results.csv").read_text())
        for path in folder.iterdir():
            path.unlink()
    assert len(results) == 1


def test_bounded_search_is_a_row_of_its_own(tmp_path):
    run(tmp_path, InstantWorkers(), searches())
    run(tmp_path, InstantWorkers(), searches(max_size=20))
    rows = pd.read_csv(tmp_path / "mlp_results.csv")
    bounded = rows[rows.protocol == "paper max_size=20"]
    assert len(bounded) == len(rows) / 2
    assert bounded.threshold.max() == 20
    assert bounded[bounded.threshold == 20].first_failure.isna().all()


def test_both_models_in_one_folder(tmp_path):
    small = TransformerArchitecture(32, 40, 4, 1)
    transformer = Bisection(small, TRANSFORMER_SPEC.protocol(), 32_000, repeat=0)
    mlp = Bisection(MLPArchitecture(5, 1), PAPER, 1_000, repeat=0)
    with ResultsFolder(tmp_path, [MLP_SPEC, TRANSFORMER_SPEC]) as folder:
        drive([mlp, transformer], folder, InstantWorkers())
    assert pd.read_csv(tmp_path / "mlp_results.csv").model.tolist() == ["mlp"]
    assert pd.read_csv(tmp_path / "transformer_results.csv").model.tolist() == ["transformer"]


def test_a_ctrl_c_waits_while_a_worker_starts():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    done = threading.Event()
    # A thread that does not block the signal: the process gets it nevertheless.
    threading.Thread(target=done.wait, daemon=True).start()
    started = False
    try:
        with pytest.raises(KeyboardInterrupt), interrupts_held_back():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.1)
            started = True
    finally:
        done.set()
        signal.signal(signal.SIGINT, before)
    assert started


class SmallMemory(InstantWorkers):
    """Trains up to five probes together; more than ``largest`` sequences in a job are too many."""

    def __init__(self, largest, count=2):
        super().__init__(count)
        self.largest, self.jobs, self.sizes = largest, [], []

    def largest_job(self, kind):
        return 5

    @property
    def has_idle(self):
        return len(self.jobs) < self.count

    def submit(self, job):
        super().submit(job)
        self.jobs.append(job)
        self.sizes.append([probe.n for probe in job])

    def wait(self, timeout):
        job = self.jobs.pop(0)
        self.running = [probe for probe in self.running if probe not in job]
        if max(probe.n for probe in job) > self.largest:
            return [(probe, OutOfMemory("too large")) for probe in job]
        self.trained += job
        return [(probe, outcome_of(probe)) for probe in job]


def test_a_probe_too_large_for_memory_fails_alone(tmp_path):
    whole, small = tmp_path / "whole", tmp_path / "small"
    expected = run(whole, InstantWorkers())
    workers = SmallMemory(largest=64)
    states = run(small, workers)
    for state, complete in zip(states, expected, strict=True):
        sizes = [probe.n for probe, _ in complete.taken]
        assert (state.failure is not None) == any(n > 64 for n in sizes)
        if state.failure is None:
            assert state.bounds == complete.bounds
    assert {s.failure for s in states} == {None, "too large"}
    # What fitted is in the log; another attempt trains none of it again.
    again = SmallMemory(largest=64)
    run(small, again)
    assert again.trained == []
