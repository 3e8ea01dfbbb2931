"""Shards of a list of searches, and their logs merged: as if one machine had done it all."""

import dataclasses
import itertools
import random
import re
from collections import Counter

import pytest
from scripts import ROOT, run_here
from test_driver import InstantWorkers, run, searches

from mlp_experiments.mlp_utils import SPEC
from threshold_search.plan import shard
from training.errors import UserError
from training.probe import BITS_VERSION

MERGE = ROOT / "threshold_search" / "merge_logs.py"
LOG, RESULTS = "mlp_probes.csv", "mlp_results.csv"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    run(folder, InstantWorkers())
    return folder


@pytest.fixture
def parts(tmp_path):
    """Three shards, two of which have rows of another protocol or bits version too."""
    folders = []
    for index in (1, 2, 3):
        folder = tmp_path / f"part{index}"
        run(folder, InstantWorkers(), shard(searches(), index, 3))
        folders.append(folder)
    changed = [
        dataclasses.replace(s, protocol=SPEC.protocol(patience=5)) for s in searches(repeats=1)
    ]
    run(folders[0], InstantWorkers(), changed)
    log = folders[1] / LOG
    row = log.read_text().splitlines()[-1]
    assert f"paper,{BITS_VERSION}," in row
    log.write_text(
        log.read_text() + row.replace(f"paper,{BITS_VERSION},", f"paper,{BITS_VERSION - 1},") + "\n"
    )
    (folders[0] / "runs.jsonl").write_text('{"time": "2026-01-02"}\n{"time": "2026-01-01"}\n')
    (folders[2] / "runs.jsonl").write_text('{"time": "2026-01-02"}\n')
    return folders


def merge(monkeypatch, capsys, *folders):
    return run_here(MERGE, list(map(str, folders)), monkeypatch, capsys)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"}


# Shards.


@pytest.mark.parametrize("count", [1, 2, 3, 5, 12])
def test_every_search_is_in_one_shard_and_none_has_much_more_than_another(count):
    wanted = searches()
    parts = [shard(wanted, index, count) for index in range(1, count + 1)]
    assert Counter(itertools.chain(*parts)) == Counter(wanted)
    different = [{dataclasses.replace(s, budget=0) for s in part} for part in parts]
    assert max(map(len, different)) - min(map(len, different)) <= 1
    if count == 3:  # as many as there are repeats
        assert len({tuple(sorted(Counter(s.budget for s in part).items())) for part in parts}) == 1


def test_shards_train_no_probe_twice(tmp_path):
    trained = []
    for index in (1, 2, 3, 4):
        workers = InstantWorkers()
        run(tmp_path / str(index), workers, shard(searches(), index, 4))
        trained += workers.trained
    assert len(set(trained)) == len(trained)


def test_more_shards_than_searches_are_refused():
    with pytest.raises(UserError, match="--shard 3/16: there are only 15 searches"):
        shard(searches(), 3, 16)


# Merged.


@pytest.mark.parametrize("seed", range(4))
def test_merged_shards_give_the_results_of_one_run(
    seed, whole, parts, tmp_path, monkeypatch, capsys
):
    draw = random.Random(seed)
    order = [*parts, *draw.choices(parts, k=seed)]
    draw.shuffle(order)
    out = tmp_path / "out"
    status, report, notes = merge(monkeypatch, capsys, out, *order)
    assert (status, notes) == (0, "")
    assert "0 duplicate rows, 0 contradictions" in report
    before = contents(out)
    assert before["runs.jsonl"] == b'{"time": "2026-01-01"}\n{"time": "2026-01-02"}\n'
    merge(monkeypatch, capsys, out, *reversed(order))
    assert contents(out) == before
    workers = InstantWorkers()
    run(out, workers)
    assert workers.trained == []
    assert (out / RESULTS).read_bytes() == (whole / RESULTS).read_bytes()


def test_out_keeps_its_rows_and_one_of_two_that_differ_in_seconds_stays(
    whole, parts, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "out"
    run(out, InstantWorkers(), searches(repeats=1))
    log = out / LOG
    rows = log.read_text().count("\n") - 1
    log.write_text(log.read_text().replace(",0.5\n", ",9.5\n"))
    status, report, _ = merge(monkeypatch, capsys, out, *parts)
    assert status == 0 and f"; {rows} duplicate rows, 0 contradictions" in report
    workers = InstantWorkers()
    run(out, workers)
    assert workers.trained == []
    assert (out / RESULTS).read_bytes() == (whole / RESULTS).read_bytes()


def test_contradictions_stay_and_are_named(whole, parts, tmp_path, monkeypatch, capsys):
    other, out = tmp_path / "other", tmp_path / "out"
    other.mkdir()
    header, *rows = (parts[2] / LOG).read_text().splitlines()
    row = next(row for row in rows if ",False,0.5," in row)
    contrary = row.replace(",False,0.5,", ",True,1.0,")
    (other / LOG).write_text(f"{header}\n{contrary}\n")
    status, report, notes = merge(monkeypatch, capsys, out, other, *parts)
    assert status == 0 and "0 duplicate rows, 1 contradictions" in report
    assert notes.startswith("contradiction: model=mlp protocol=paper ")
    assert str(other / LOG) in notes and str(parts[2] / LOG) in notes
    assert {row, contrary} < set((out / LOG).read_text().splitlines())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda text: text.replace("perfect", "Perfect", 1),
            r"part2/mlp_probes.csv line \d+: stop",
        ),
        (
            lambda text: text.replace("model", "modell", 1),
            "part2/mlp_probes.csv has another layout",
        ),
        (lambda text: text.replace("hidden_size", "width", 1), "has other columns than another"),
    ],
)
def test_a_bad_log_is_refused_and_nothing_is_written(
    damage, message, parts, tmp_path, monkeypatch, capsys
):
    log, out = parts[1] / LOG, tmp_path / "out"
    log.write_text(damage(log.read_text()))
    status, report, notes = merge(monkeypatch, capsys, out, *parts)
    assert (status, report) == (2, "") and notes.count("\n") == 1
    assert re.search(message, notes)
    assert not out.exists()


@pytest.mark.parametrize("before", ['{"time": "2026-01-03"}\n', ""])
@pytest.mark.parametrize("torn", [b'{"time": "2026-01-0', b'{"time": "caf\xc3'])
def test_torn_last_lines_are_left_out(before, torn, parts, tmp_path, monkeypatch, capsys):
    log, record, out = parts[1] / LOG, parts[1] / "runs.jsonl", tmp_path / "out"
    log.write_text(log.read_text() + "mlp,paper,2,99")
    record.write_bytes(before.encode() + torn)
    status, _, notes = merge(monkeypatch, capsys, out, *parts)
    left_out = [f"{path}: an unfinished last line is left out\n" for path in (log, record)]
    assert (status, notes) == (0, "".join(left_out))
    expected = '{"time": "2026-01-01"}\n{"time": "2026-01-02"}\n' + before
    assert (out / "runs.jsonl").read_text() == expected


@pytest.mark.parametrize("name", ["none", "empty", "file"])
def test_a_folder_without_a_log_is_refused(name, parts, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    out = tmp_path / "out"
    status, _, notes = merge(monkeypatch, capsys, out, parts[0], tmp_path / name)
    assert status == 2 and notes.count("\n") == 1 and str(tmp_path / name) in notes
    assert not out.exists()


@pytest.mark.parametrize("name", ["results.lock", "results-7.lock", "runs.jsonl"])
def test_a_search_that_ended_before_its_first_probe_is_passed_over(
    name, parts, tmp_path, monkeypatch, capsys
):
    early, out = tmp_path / "early", tmp_path / "out"
    early.mkdir()
    (early / name).touch()
    status, _, notes = merge(monkeypatch, capsys, out, early, *parts)
    assert (status, notes) == (0, f"note: {early} has no probe yet\n")
    assert (out / LOG).exists()
