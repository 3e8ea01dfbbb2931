"""The Python interface: the same numbers as the scripts, and scripts without a guard."""

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
from threshold_search.executors.local import Workers
from threshold_search.spare import SpareCpus
from training.errors import OutOfMemory, UserError
from visualizations.summary import summarize

SMALL = MLPArchitecture(4, 1)


def test_find_threshold_is_what_the_search_script_finds(tmp_path):
    ours = find_threshold(SMALL, repeats=2, results_dir=tmp_path / "ours", seed=3)
    flags = [
        "--model",
        "mlp",
        "--hidden-size",
        "4",
        "--layers",
        "1",
        "--repeats",
        "2",
        "--seed",
        "3",
    ]
    ended = run_script(BINARY_SEARCH, *flags, "--results-dir", "theirs", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    theirs = pd.read_csv(tmp_path / "theirs" / "mlp_results.csv")
    assert list(ours.columns)[: len(theirs.columns) + 1] == [*theirs.columns, "capped"]
    assert summarize(ours).n.tolist() == [2]  # it is what the tables and figures take
    without_seconds = list(theirs.columns[:-1])
    expected = theirs.fillna({"protocol": "paper"})[without_seconds]
    pd.testing.assert_frame_equal(ours[without_seconds], expected, check_dtype=False)


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
        {"workers": -1},
        {"repeats": 0},
        {"seed": -1},
        {"attempt": -1},
        {"max_size": 0},
        {"engine": "Reference"},
        {"device": "gpu"},
        {"executor": "Ray"},
        {"deadline": 0},
        {"deadline": float("nan")},
    ],
    ids=str,
)
def test_numbers_and_names_that_do_not_exist(arguments, tmp_path):
    with pytest.raises(UserError, match=str(next(iter(arguments.values())))):
        find_threshold(SMALL, results_dir=tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_a_deadline_ends_a_repeat(capsys):
    """No job of any size ends within it: none of the repeats has a result."""
    with pytest.raises(OutOfMemory, match=r"a worker died 3 times .*took longer than the deadline"):
        find_threshold(SMALL, repeats=1, workers=1, max_size=2, deadline=1e-3)


def test_guesses_are_made_unless_they_are_not_wanted(tmp_path, monkeypatch):
    """Whether one ends before the search does is another matter."""
    monkeypatch.setattr(SpareCpus, "has_one", lambda self, jobs: True)
    submitted, submit = [], Workers.submit
    monkeypatch.setattr(
        Workers, "submit", lambda self, *job: submitted.append(job) or submit(self, *job)
    )
    found, jobs = {}, {}
    for speculation in (True, False):
        submitted.clear()
        folder = tmp_path / str(speculation)
        rows = find_threshold(
            *(SMALL, SPEC.protocol(max_epochs=20)),
            repeats=1,
            results_dir=folder,
            max_size=64,
            speculation=speculation,
        )
        found[speculation] = rows.drop(columns="seconds")
        jobs[speculation] = len(submitted)
    pd.testing.assert_frame_equal(found[True], found[False])
    assert jobs[True] > jobs[False]


def test_in_a_thread():
    found = []
    thread = threading.Thread(
        target=lambda: found.append(find_threshold(SMALL, repeats=1, workers=1, max_size=2))
    )
    thread.start()
    thread.join()
    assert found[0].threshold.tolist() == [2]


def test_tasks_have_to_agree():
    with pytest.raises(ValueError, match="vocab_size"):
        find_threshold(SMALL, SPEC.protocol(vocab_size=4))
    with pytest.raises(ValueError, match="seq_len"):
        train_probe(SMALL, 20, SPEC.protocol(seq_len=4))


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
