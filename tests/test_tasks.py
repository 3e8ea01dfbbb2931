"""What is memorized: the tasks, and that every model, engine and script takes them."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import toy_lookup
import toy_vectors
from scipy.stats import chisquare
from scripts import BINARY_SEARCH, GENERATOR, TRAIN_MLP, TRAIN_TRANSFORMER, run_script

from dataset.encoding import IGNORED, next_token, sequence_to_sequence, whole_label
from dataset.synthetic_generator import generate_mappings
from dataset.task import Bijection, Facts
from engines.choice import choose_engine
from engines.engine import NativeEngine, ReferenceEngine, StackedEngine
from engines.native.load import load_engine
from threshold_search.models import MODELS
from training.errors import UserError
from training.probe import Probe
from training.start import start_probe

FLAGS = {"mlp": {"hidden_size": 24, "layers": 2}}
SHAPES = {"hidden_size": 16, "d_ff": 20, "heads": 2, "layers": 2}


def probe_of(spec, n=40, **changes):
    protocol = spec.protocol(max_epochs=12, **changes)
    flags = FLAGS.get(spec.name, SHAPES)
    return Probe(spec.solve_for(protocol.make_task(), None, **flags), protocol, 0, 1, n)


# --- The tasks -------------------------------------------------------------------------------


def test_the_published_task_is_the_generator():
    made, expected = Bijection(4, 6).generate(9, 5), generate_mappings(9, 4, 6, 5)
    assert (made.inputs == expected.inputs).all() and (made.labels == expected.labels).all()
    assert Bijection().largest == 5 * 10**9
    assert Bijection().bits_per_label == pytest.approx(10 * math.log2(10))


def test_facts_are_distinct_keys_with_independent_uniform_values():
    task = Facts(vocab_size=5, seq_len=6)
    assert (task.label_vocab_size, task.label_len, task.largest) == (5, 1, 5**6)
    assert task.bits_per_label == pytest.approx(math.log2(5))
    facts = task.generate(4000, 3)
    assert facts.inputs.shape == (4000, 6) and facts.labels.shape == (4000, 1)
    assert facts.inputs.dtype == facts.labels.dtype == np.int64
    assert len(np.unique(facts.inputs, axis=0)) == 4000
    values = facts.labels[:, 0]
    assert chisquare(np.bincount(values, minlength=5)).pvalue > 0.01
    for column in facts.inputs.T:  # neither do values follow the key's tokens
        table = np.histogram2d(column, values, bins=5)[0]
        assert chisquare(table.ravel()).pvalue > 0.001
    fewer = task.generate(7, 3)
    assert (fewer.inputs == facts.inputs[:7]).all() and (fewer.labels == facts.labels[:7]).all()


def test_every_key_can_be_asked_for_and_no_more():
    task = Facts(2, 3)
    assert len(np.unique(task.generate(8, 0).inputs, axis=0)) == 8
    for n in (0, 9):
        with pytest.raises(ValueError, match=f"num_sequences.* {n}"):
            task.generate(n, 0)


def test_encodings():
    facts = Facts(5, 3).generate(2, 0)
    (key, value), dot = (facts.inputs, facts.labels), IGNORED
    assert [whole_label(facts)[1].tolist(), next_token(facts)[0].tolist()] == [
        value.tolist(),
        key.tolist(),
    ]
    for encode in (sequence_to_sequence, next_token):
        assert encode(facts)[1].tolist() == [[dot, dot, v] for v in value[:, 0]]


# --- Every model and engine ------------------------------------------------------------------


@pytest.mark.parametrize("task", ["bijection", "facts"])
@pytest.mark.parametrize("name", MODELS)
def test_shapes_and_counts(name, task):
    probe = probe_of(MODELS[name], task=task, vocab_size=7, seq_len=4)
    start, shape = start_probe(probe), probe.protocol.make_task()
    logits = start.module(torch.from_numpy(start.inputs))
    assert logits.shape == (*start.targets.shape, shape.label_vocab_size)
    assert (start.targets != IGNORED).sum() == 40 * shape.label_len
    count = sum(parameter.numel() for parameter in start.module.parameters())
    assert probe.architecture.num_parameters == count


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("name", MODELS)
def test_the_engines_agree_on_facts(name, dropout):
    probe = probe_of(MODELS[name], task="facts", patience=0, dropout=dropout, learning_rate=0.01)
    engines = [StackedEngine()] + [NativeEngine()] * bool(load_engine())
    [(expected, _)] = ReferenceEngine().train([probe])
    for engine in engines:
        [(outcome, _)] = engine.train([probe])
        assert outcome.loss == pytest.approx(expected.loss, rel=1e-3)
        assert outcome.epochs == expected.epochs


@pytest.mark.parametrize("n", [12, 90])
def test_one_layer_holds_facts_where_a_linear_program_says_so(n):
    """Without hidden layers: trained to the end, right where weights exist, wrong where not."""
    spec = MODELS["mlp"]
    task = {"task": "facts", "vocab_size": 3, "seq_len": 5}
    protocol = spec.protocol(**task)
    architecture = spec.solve_for(protocol.make_task(), None, layers=0)
    engine = choose_engine("linear-program", "cpu", architecture, protocol)
    [(exact, _)] = engine.train([Probe(architecture, protocol, 0, 0, n)])
    longer = spec.protocol(**task, patience=0, max_epochs=500, weight_decay=0.0)
    [(trained, _)] = ReferenceEngine().train([Probe(architecture, longer, 0, 0, n)])
    assert exact.memorized == trained.memorized == (n == 12)


# --- Tasks and models of one's own -----------------------------------------------------------


def test_vectors_and_fixed_weights():
    """Random features of Gaussian points are in general position: as many points as features."""
    spec = toy_vectors.SPEC
    verdicts = {}
    for features, n in itertools.product((8, 64), (6, 60)):
        protocol = spec.protocol(max_epochs=2000)
        architecture = spec.solve_for(protocol.make_task(), None, features=features)
        probe = Probe(architecture, protocol, 0, 0, n)
        before = start_probe(probe).module.state_dict()["fixed"]
        for engine in (ReferenceEngine(), StackedEngine()):
            [(outcome, weights)] = engine.train([probe])
            assert torch.equal(weights()["fixed"], before)
            assert verdicts.setdefault((features, n), outcome.memorized) == outcome.memorized
    assert verdicts == {(8, 6): True, (8, 60): False, (64, 6): True, (64, 60): True}


class Strict(toy_vectors.Vectors):
    """Has no vocabulary of 10."""

    def __post_init__(self):
        if self.vocab_size == 10:
            raise ValueError("vocab_size must not be 10")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("test_tasks:Strict", "vocab_size must not be 10"),
        ("dataset.task:Task", "abstract"),
        ("dataset.task:TASKS", "TASKS"),
        ("dataset.encoding:IGNORED", "IGNORED"),
    ],
)
def test_what_is_no_task_is_refused_in_one_line(name, reason, tmp_path):
    flags = ("--num-sequences", 3, "--task", name)
    ended = run_script(GENERATOR, *flags, cwd=tmp_path, PYTHONPATH=str(Path(__file__).parent))
    assert ended.returncode == 2 and reason in ended.stderr and ended.stderr.count("\n") == 1


def test_vectors_are_saved_to_the_last_digit(tmp_path):
    flags = ("--num-sequences", 5, "--task", "toy_vectors:Vectors", "--save", "out.csv")
    ended = run_script(GENERATOR, *flags, cwd=tmp_path, PYTHONPATH=str(Path(__file__).parent))
    assert ended.returncode == 0, ended.stderr
    made, saved = toy_vectors.Vectors().generate(5, 0), pd.read_csv(tmp_path / "out.csv")
    assert (saved.filter(like="input").to_numpy(np.float32) == made.inputs).all()
    assert (saved.filter(like="label").to_numpy() == made.labels).all()


def test_a_search_and_its_rows_for_a_task_of_ones_own(tmp_path):
    flags = ("--model", "toy_vectors:SPEC", "--features", 8, "--repeats", 1, "--max-epochs", 50)
    here = str(Path(__file__).parent)
    ended = run_script(
        BINARY_SEARCH, *flags, "--results-dir", tmp_path, cwd=tmp_path, PYTHONPATH=here
    )
    assert ended.returncode == 0, ended.stderr
    row = pd.read_csv(tmp_path / "features_results.csv").iloc[0]
    assert row.num_parameters == 24 and row.threshold >= 3


@pytest.mark.parametrize(
    ("spec", "changes", "reason"),
    [
        (MODELS["mlp"], {"task": "toy_vectors:Vectors"}, "real numbers, it reads tokens"),
        (toy_vectors.SPEC, {"task": "facts"}, "has tokens, it reads real numbers"),
        (toy_lookup.SPEC, {"task": "facts"}, None),  # a label at the last position will do
    ],
)
def test_a_model_that_cannot_answer_says_so_in_one_line(spec, changes, reason):
    protocol = spec.protocol(**changes)
    if reason is None:
        assert spec.solve_for(protocol.make_task(), 1000).seq_len == 10
        return
    with pytest.raises(UserError, match=reason) as error:
        spec.solve_for(protocol.make_task(), None, **FLAGS["mlp"])
    assert "\n" not in str(error.value)


def test_an_architecture_takes_the_shape_of_the_task():
    spec = MODELS["mlp"]
    published = spec.solve(None, layers=1, hidden_size=8)
    small = spec.solve(None, vocab_size=4, seq_len=5, layers=1, hidden_size=8)
    protocol = spec.protocol(vocab_size=4, seq_len=5)
    assert Probe(published, protocol, 0, 0, 1) == Probe(small, protocol, 0, 0, 1)
    with pytest.raises(UserError, match=r"vocab_size=4.*give a protocol with the same"):
        Probe(small, spec.paper, 0, 0, 1)


# --- Scripts ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "script",
    [
        (TRAIN_MLP, "--params", 2000),
        (TRAIN_TRANSFORMER, "--params", 10_000),
        (TRAIN_TRANSFORMER, "--architecture", "decoder-only", "--params", 10_000),
    ],
    ids=["mlp", "transformer", "decoder-only"],
)
def test_training_scripts_take_facts(script, tmp_path):
    flags = ("--task", "facts", "--num-sequences", 8, "--max-epochs", 5, "--json")
    ended = run_script(*script, *flags, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    summary = json.loads(ended.stdout)
    assert "task=facts" in summary["protocol"] and summary["n"] == 8
    bits = 8 * math.log2(10) / summary["num_parameters"] if summary["memorized"] else 0.0
    assert summary["bits_per_parameter"] == pytest.approx(bits)


def test_mappings_of_a_task_are_printed(tmp_path):
    script = (GENERATOR, "--num-sequences", 3, "--task", "facts")
    lines = run_script(*script, cwd=tmp_path).stdout.splitlines()
    assert [len(line.split("->")[1].split()) for line in lines] == [1, 1, 1]
    refused = run_script(*script[:-1], "nothing", cwd=tmp_path)
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
