"""The Python interface: the same numbers as the scripts, and scripts without a guard."""

import dataclasses
import json
import re
import subprocess
import sys
import threading

import pandas as pd
import pytest
from scripts import BINARY_SEARCH, ROOT, TRAIN_MLP, run_script

from mlp_experiments.mlp_utils import SPEC, MLPArchitecture
from threshold_search.api import find_threshold, train_probe
from threshold_search.options import Options
from training.errors import OutOfMemory, UserError
from training.spec import Flag
from visualizations.summary import summarize

SMALL = MLPArchitecture(4, 1)


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    """What the search script finds for SMALL."""
    folder = tmp_path_factory.mktemp("script")
    flags = ["--model", "mlp", "--hidden-size", 4, "--layers", 1, "--repeats", 2]
    flags += ["--seed", 3, "--max-size", 16]
    ended = run_script(BINARY_SEARCH, *flags, "--results-dir", folder, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return pd.read_csv(folder / "mlp_results.csv")


@pytest.mark.parametrize(
    ("model", "sizes"),
    [
        (SMALL, {}),
        (SPEC, {"hidden_size": [4], "layers": 1}),
        ("mlp", {"params": 904, "layers": 1, "workers": 1}),
    ],
)
def test_find_threshold_is_what_the_search_script_finds(model, sizes, script, tmp_path):
    options = Options(results_dir=tmp_path / "out", workers=2)
    ours = find_threshold(model, None, options, repeats=2, seed=3, max_size=16, **sizes)
    assert list(ours.columns)[: len(script.columns) + 1] == [*script.columns, "capped"]
    assert summarize(ours).n.tolist() == [2]  # it is what the tables and figures take
    same = list(script.columns[:-1])  # but the seconds
    pd.testing.assert_frame_equal(ours[same], script[same], check_dtype=False)
    record = json.loads((tmp_path / "out" / "runs.jsonl").read_text())
    assert record["workers"] == sizes.get("workers", 2)
    assert record["command"].startswith("find_threshold(") and str(tmp_path) not in str(record)


def test_several_configurations():
    found = find_threshold("mlp", hidden_size=[2, 3], layers=[1, 2], repeats=1, max_size=1)
    shapes = found[["hidden_size", "num_layers"]].to_numpy().tolist()
    assert shapes == [[2, 1], [3, 1], [2, 2], [3, 2]]


def test_without_a_folder_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set((ROOT / "results").rglob("*"))
    found = find_threshold(SMALL, SPEC.protocol(max_epochs=5), repeats=1, workers=1, max_size=4)
    assert found.protocol.tolist() == ["paper max_epochs=5 max_size=4"]
    assert list(tmp_path.iterdir()) == []
    assert set((ROOT / "results").rglob("*")) == before


def test_train_probe_is_what_the_training_script_trains(tmp_path):
    outcome = train_probe(SMALL, 20, seed=1, repeat=2, attempt=1)
    flags = [
        "--hidden-size",
        "4",
        "--num-sequences",
        "20",
        "--seed",
        "1",
        "--repeat",
        "2",
        "--attempt",
        "1",
        "--json",
    ]
    ended = run_script(TRAIN_MLP, *flags, cwd=tmp_path)
    theirs = json.loads(ended.stdout)
    assert theirs["protocol"].startswith("paper attempt=1")
    for name in ("memorized", "accuracy", "loss", "epochs", "stop_reason"):
        assert theirs[name] == getattr(outcome, name), name
    assert train_probe(SMALL, 20, seed=1, repeat=2).loss != outcome.loss


@pytest.mark.parametrize(
    "arguments",
    [
        {"workers": 0},
        {"workers": 1.5},
        {"repeats": 0},
        {"seed": -1},
        {"attempt": -1},
        {"max_size": 0},
        {"engine": "Reference"},
        {"device": "gpu"},
        {"executor": "Ray"},
        {"deadline": 0},
        {"deadline": float("nan")},
        {"layers": -1},
        {"layers": [1, "two"]},
        {"params": 0},
    ],
    ids=str,
)
def test_numbers_and_names_that_do_not_exist(arguments, tmp_path):
    (value,) = arguments.values()
    wrong = str(value[-1] if isinstance(value, list) else value)
    with pytest.raises(UserError, match=wrong):
        find_threshold("mlp", results_dir=tmp_path / "out", **{"hidden_size": 2, **arguments})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("model", "names", "there"),
    [
        ("mlp", {"width": 3}, "protocol, .*repeats, .*deadline, results_dir, params, layers, hid"),
        (SPEC, {"num_layers": 3}, "params, layers, hidden_size"),
        (SMALL, {"layers": 1}, "for an architecture: there are .* deadline, results_dir$"),
        ("gpt", {}, "mlp, transformer, decoder-only"),
    ],
)
def test_other_names_are_told_what_there_is(model, names, there):
    with pytest.raises(UserError, match=there) as raised:
        find_threshold(model, **names)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["workers", "repeats", "options", "params"])
def test_a_size_that_has_an_options_name_is_refused(name):
    taken = dataclasses.replace(
        SPEC,
        name="taken",
        architecture=type("Taken", (MLPArchitecture,), {}),
        flags=(*SPEC.flags, Flag(name, "a size")),
    )
    with pytest.raises(UserError, match=f"^{name} of the model taken is an option"):
        find_threshold(taken, hidden_size=2, layers=1)


def test_a_deadline_ends_a_repeat():
    """No job of any size ends within it: none of the repeats has a result."""
    with pytest.raises(OutOfMemory, match=r"a worker died 3 times .*took longer than the deadline"):
        find_threshold(SMALL, repeats=1, workers=1, max_size=2, deadline=1e-3)


def test_in_a_thread():
    found = []
    thread = threading.Thread(
        target=lambda: found.append(find_threshold(SMALL, repeats=1, workers=1, max_size=2))
    )
    thread.start()
    thread.join()
    assert found[0].threshold.tolist() == [2]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("mlp", None, None, {"layers": []}), "layers has no value"),
        (("mlp", None, None, {"layers": 1, "params": 900, "max_size": True}), "max_size"),
        ((3, None, None, {}), "a model is an architecture"),
        (("mlp", None, {"workers": 1}, {"layers": 1}), "options must be"),
    ],
)
def test_what_no_search_takes_is_said_in_one_line(arguments, reason):
    *positional, names = arguments
    with pytest.raises(UserError, match=reason):
        find_threshold(*positional, **names)


def test_the_protocol_says_the_task():
    found = find_threshold(SMALL, SPEC.protocol(vocab_size=4), repeats=1, max_size=1).iloc[0]
    assert (found.vocab_size, found.num_parameters) == (4, 4 * 40 + 4 + 4 * 40 + 40)
    of_another = MLPArchitecture(4, 1, seq_len=5)
    with pytest.raises(UserError, match=r"seq_len=5.*give a protocol"):
        train_probe(of_another, 20, SPEC.protocol(seq_len=4))


SCRIPT = """
from mlp_experiments.mlp_utils import MLPArchitecture
from threshold_search.api import find_threshold

{guard}print(find_threshold(MLPArchitecture(2, 1), repeats=1, max_size=2).threshold.tolist())
"""


@pytest.mark.parametrize("guard", ['if __name__ == "__main__": ', ""])
def test_a_script_needs_a_guard_and_is_told_so(guard, tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT.format(guard=guard))
    command = [sys.executable, str(script)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    if guard:
        assert (ended.returncode, ended.stdout) == (0, "[2]\n"), ended.stderr
    else:
        assert ended.returncode != 0
        assert ended.stderr.count("Traceback") == 1  # the script's own
        assert ended.stderr.splitlines()[-1].endswith('under `if __name__ == "__main__":`')


def test_a_class_that_workers_cannot_import(monkeypatch):
    monkeypatch.setattr(MLPArchitecture, "__module__", "__main__")
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with pytest.raises(UserError, match="a module of its own"):
        find_threshold(SMALL)


def test_the_readmes_example(tmp_path):
    (example, *_) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (tmp_path / "example.py").write_text(example)
    ended = subprocess.run(
        [sys.executable, "example.py"], capture_output=True, text=True, cwd=tmp_path, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    assert "threshold" in ended.stdout
