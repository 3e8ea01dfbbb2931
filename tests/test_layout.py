"""What a folder says of its rows: the task in their columns, and what their labels call paper."""

import csv
import json
from dataclasses import dataclass, field, replace

import pytest
from scripts import ROOT
from test_driver import InstantWorkers, outcome_of, run, searches

from threshold_search import merge_logs
from threshold_search.log import probe_log, published
from threshold_search.log.probe_log import ProbeLog
from threshold_search.log.results_folder import ResultsFolder
from threshold_search.models import MODELS
from training.errors import UserError
from training.probe import Probe
from training.protocol import Protocol
from training.spec import Architecture, ModelSpec
from visualizations.results import load_probes, load_results
from visualizations.summary import bits_per_parameter

LOG, RESULTS = "mlp_probes.csv", "mlp_results.csv"
TASK = ["task", "vocab_size", "seq_len", "label_vocab_size", "label_len"]


def model_of(paper, name="own"):
    """A model that is not registered, with a published protocol of its own; never built."""

    @dataclass(frozen=True)
    class Own(Architecture):
        vocab_size: int = paper.vocab_size
        seq_len: int = paper.seq_len

        @property
        def num_parameters(self):
            return 100

    return ModelSpec(name, Own, solve=None, build=None, paper=paper)


def write_probe(folder, spec, n=2, **changes):
    probe = Probe(spec.architecture(), replace(spec.paper, **changes), 0, 0, n)
    with ResultsFolder(folder, [spec]) as results:
        results.logs[spec.name].append([(probe, outcome_of(probe))])
    return probe


# What paper stands for.


def test_a_published_protocol_of_its_own_is_read_back(tmp_path):
    write_probe(tmp_path, model_of(Protocol(vocab_size=4, seq_len=5, learning_rate=0.5)))
    probes = load_probes(tmp_path)
    assert probes["protocol"].tolist() == ["paper"]
    assert (probes["vocab_size"].item(), probes["learning_rate"].item()) == (4, 0.5)
    per_sequence = bits_per_parameter(probes["n"], probes).item() * 100 / 2
    assert per_sequence == pytest.approx(10)  # 5 tokens of 2 bits


def test_a_published_protocol_that_has_changed_is_refused_and_others_stay(tmp_path):
    write_probe(tmp_path, model_of(Protocol(patience=4)))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(UserError, match=r"own's rows .* patience=4, not 5") as error:
        write_probe(tmp_path, model_of(Protocol(patience=5)))
    assert str(tmp_path) in str(error.value) and "\n" not in str(error.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    write_probe(tmp_path, model_of(Protocol(patience=5), "other"))
    write_probe(tmp_path, model_of(Protocol(patience=4)), n=3)
    assert load_probes(tmp_path)["patience"].tolist() == [5, 4, 4]


def test_a_folder_without_the_record_has_the_registered_protocols(tmp_path):
    write_probe(tmp_path, model_of(Protocol(patience=4)))
    for model in ("transformer", "mlp"):
        log = ROOT / "results" / f"{model}_probes.csv"
        (tmp_path / log.name).write_text("".join(log.open().readlines()[:2]))
    (tmp_path / "protocols.json").unlink()
    frame = load_probes(tmp_path).set_index("model")
    assert frame["dropout"].to_dict() == {"mlp": 0.0, "own": 0.0, "transformer": 0.1}
    assert frame["patience"].to_dict() == {"mlp": 3, "own": 3, "transformer": 3}


def test_a_record_from_before_a_setting_has_its_default(tmp_path):
    write_probe(tmp_path, model_of(Protocol(patience=4)))
    path = tmp_path / "protocols.json"
    found = json.loads(path.read_text())
    del found["own"]["verdict"]
    path.write_text(json.dumps(found))
    assert load_probes(tmp_path)["verdict"].tolist() == ["lowest_loss"]


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"own": 3}', '{"own": {"no": 1}}', '{"own": {"patience": -1}}', b"\xff"]
)
def test_a_file_that_is_no_record_is_refused(content, tmp_path):
    path = tmp_path / "protocols.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for read in (load_probes, load_results, lambda folder: run(folder, InstantWorkers())):
        with pytest.raises(UserError, match="no record of published protocols") as error:
            read(tmp_path)
        assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_every_committed_folder_has_its_record():
    logs = [path for path in (ROOT / "results").rglob("*_probes.csv")]
    assert len({path.parent for path in logs}) == 6
    for folder in {path.parent for path in logs}:
        models = {p.stem.removesuffix("_probes") for p in logs if p.parent == folder}
        found = json.loads((folder / "protocols.json").read_text())
        assert found.keys() == models
        for model in models:
            assert Protocol(**found[model]) == MODELS[model].paper


def test_merged_folders_have_one_record_and_must_agree(tmp_path):
    for name, paper in {"a": 4, "b": 4, "c": 5}.items():
        write_probe(tmp_path / name, model_of(Protocol(patience=paper)))
    write_probe(tmp_path / "b", model_of(Protocol(), "other"))
    merge_logs.merge(tmp_path / "out", [tmp_path / "a", tmp_path / "b"])
    assert load_probes(tmp_path / "out")["patience"].tolist() == [3, 4]
    with pytest.raises(UserError, match=r"c: what own's rows .* patience=5, not 4"):
        merge_logs.merge(tmp_path / "none", [tmp_path / "a", tmp_path / "c"])
    assert not (tmp_path / "none").exists()
    (tmp_path / "a" / "mlp_probes.csv").write_text("")  # a registered model, without a record
    record = {"mlp": vars(Protocol(patience=9))}
    (tmp_path / "b" / "protocols.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="b: what mlp's rows"):
        merge_logs.merge(tmp_path / "none", [tmp_path / "a", tmp_path / "b"])


# Files from before the columns of the task.


def without_task(path):
    """Rewrite a CSV as it was: every column but those of the task."""
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    kept = [i for i, name in enumerate(rows[0]) if name not in TASK]
    path.write_text("".join(",".join(row[i] for i in kept) + "\n" for row in rows))


def test_old_files_go_on_in_their_layout_and_say_the_same(tmp_path):
    run(tmp_path / "new", InstantWorkers())
    run(tmp_path / "old", InstantWorkers(), searches(repeats=1))
    for name in (LOG, RESULTS):
        without_task(tmp_path / "old" / name)
    workers = InstantWorkers()
    run(tmp_path / "old", workers)
    assert len(workers.trained) < (tmp_path / "new" / LOG).read_text().count("\n") - 1
    for name, load, last in ((LOG, load_probes, "n"), (RESULTS, load_results, "budget")):
        assert not set(TASK) & set((tmp_path / "old" / name).read_text().split("\n")[0].split(","))
        keys = ["num_parameters", "repeat", last]
        old, new = (load(tmp_path / which).sort_values(keys) for which in ("old", "new"))
        assert old.reset_index(drop=True).equals(new.reset_index(drop=True))


@dataclass(frozen=True)
class TaskProtocol(Protocol):
    """A protocol with a task, named as the last setting."""

    task: str = field(default="bijection", metadata={"help": "", "choices": ()})


@pytest.mark.parametrize("killed", [False, True])
def test_the_first_row_of_another_task_rewrites_the_file(killed, tmp_path, monkeypatch):
    monkeypatch.setattr(published, "Protocol", TaskProtocol)
    spec = model_of(TaskProtocol())
    write_probe(tmp_path, spec)
    write_probe(tmp_path, spec, n=3, patience=7)
    log = tmp_path / "own_probes.csv"
    new = log.read_text()
    without_task(log)
    old = log.read_text()
    twice = old + old.splitlines()[-1] + "\n"  # a log merged of several may have a probe twice
    log.write_text(twice)
    if killed:

        def dies(path, writer):
            raise KeyboardInterrupt

        monkeypatch.setattr(probe_log, "write_whole", dies)
        with pytest.raises(KeyboardInterrupt):
            write_probe(tmp_path, spec, n=4, task="facts")
        assert log.read_text() == twice
        return
    probe = write_probe(tmp_path, spec, n=4, task="facts")
    *before, last = log.read_text().splitlines(keepends=True)
    assert "".join(before) == new + new.splitlines()[-1] + "\n"
    assert last.startswith("own,paper task=facts,2,facts,")
    again = ProbeLog(log, spec)
    again.load()
    assert again.get(probe) == outcome_of(probe)
