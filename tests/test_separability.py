"""Depth 0 against linear programming.

The MLP without hidden layers is one linear classifier per output position, on one-hot features.
Whether such classifiers can memorize a data set is a linear program, so it is known exactly.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import OptimizeResult, linprog

from dataset.synthetic_generator import Mappings, generate_mappings
from engines import linear_program
from engines.choice import choose_engine
from engines.engine import LinearProgramEngine
from engines.linear_program import separating_weights
from mlp_experiments.mlp_utils import SPEC as MLP_SPEC
from mlp_experiments.mlp_utils import MLPArchitecture
from threshold_search.api import find_threshold
from training.errors import UserError
from training.loop import TrainingResult, evaluate, train
from training.probe import Probe
from training.protocol import Protocol
from training.start import start_probe

FEASIBLE, INFEASIBLE = 0, 2  # statuses of scipy.optimize.linprog


def is_separable(inputs: np.ndarray, labels: np.ndarray, vocab_size: int) -> bool:
    """Is there a linear classifier? If so, the one that was found is checked."""
    weights = separating_weights(inputs, labels, vocab_size, vocab_size)
    if weights is None:
        return False
    logits = one_hot(inputs, vocab_size) @ weights.T  # (N, V)
    best, second = np.sort(logits)[:, [-1, -2]].T
    assert (logits.argmax(1) == labels).all() and (best > second).all()
    return True


def one_hot(inputs: np.ndarray, vocab_size: int) -> np.ndarray:
    return np.eye(vocab_size)[inputs].reshape(len(inputs), -1)  # (N, V*T)


def has_solution(inputs: np.ndarray, labels: np.ndarray, vocab_size: int) -> bool:
    """The same question as a dense program: free weights whose margin is at least 1."""
    n = len(inputs)
    right, wrong = np.repeat(labels, vocab_size), np.tile(np.arange(vocab_size), n)
    pairs = right != wrong
    difference = (np.eye(vocab_size)[wrong] - np.eye(vocab_size)[right])[pairs]  # (pairs, V)
    features = np.repeat(one_hot(inputs, vocab_size), vocab_size, axis=0)[pairs]  # (pairs, V*T)
    scores = (difference[:, :, None] * features[:, None, :]).reshape(len(features), -1)
    program = linprog(
        np.zeros(scores.shape[1]),
        A_ub=scores,
        b_ub=-np.ones(len(scores)),
        bounds=(None, None),
        method="highs-ds",
    )
    assert program.status in (FEASIBLE, INFEASIBLE), program.message
    return program.status == FEASIBLE


def all_separable(data: Mappings, vocab_size: int) -> bool:
    return all(is_separable(data.inputs, labels, vocab_size) for labels in data.labels.T)


def train_linear(data: Mappings, vocab_size: int, seed: int = 0, **changes) -> TrainingResult:
    n, seq_len = data.inputs.shape
    torch.manual_seed(seed)
    shape = MLPArchitecture(0, 0, vocab_size, seq_len)
    model = shape.spec.build(shape, 0.0)
    generator = np.random.default_rng(seed)
    return train(
        model,
        torch.from_numpy(data.inputs),
        torch.from_numpy(data.labels),
        MLP_SPEC.protocol(vocab_size=vocab_size, seq_len=seq_len, **changes),
        (generator.permutation(n) for _ in itertools.count()),
    )


def linear_probe(n: int, repeat: int = 0, **task) -> Probe:
    return Probe(MLPArchitecture(0, 0, **task), MLP_SPEC.protocol(**task), 0, repeat, n)


# The program.


def test_the_program_knows_and_from_xor():
    inputs = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    assert is_separable(inputs, np.array([0, 0, 0, 1]), vocab_size=2)
    assert not is_separable(inputs, np.array([0, 1, 1, 0]), vocab_size=2)
    # With a third class for one of the corners a line does for each.
    assert is_separable(inputs, np.array([0, 1, 1, 2]), vocab_size=3)


@pytest.mark.parametrize(("seq_len", "count"), [(1, 4), (2, 14), (3, 104)])
def test_every_labelling_of_a_small_cube(seq_len, count):
    # Every threshold function of so few bits has whole weights of at most 2.
    cube = np.array(list(itertools.product((0, 1), repeat=seq_len)))
    by_force = {
        tuple((cube @ np.array(weights) > bias).astype(int))
        for weights in itertools.product(range(-2, 3), repeat=seq_len)
        for bias in np.arange(-6.5, 7)
    }
    labellings = itertools.product((0, 1), repeat=2**seq_len)
    separable = {labels for labels in labellings if is_separable(cube, np.array(labels), 2)}
    assert separable == by_force
    assert len(separable) == count  # of threshold functions: https://oeis.org/A000609


def test_more_classes_agree_with_the_dense_program():
    verdicts = []
    for vocab_size, n, seed in itertools.product((3, 4), (8, 12, 16, 24), range(4)):
        data = generate_mappings(n, vocab_size, seq_len=4, seed=seed)
        labels = data.labels[:, 0]
        verdict = is_separable(data.inputs, labels, vocab_size)
        assert verdict == has_solution(data.inputs, labels, vocab_size), (vocab_size, n, seed)
        verdicts.append(verdict)
    assert 5 <= sum(verdicts) <= len(verdicts) - 5  # both kinds were seen


@pytest.mark.parametrize(
    "answer",
    [
        {"status": 4, "message": "numerical difficulties"},
        {"status": 0, "x": np.zeros(4)},  # proves nothing, nor does this y
        {"status": 0, "x": np.full(4, np.nan), "y": np.full(4, np.nan)},
    ],
)
def test_what_is_not_proven_is_an_error(monkeypatch, answer):
    fields = {"message": "", "x": None, "y": np.full(4, 0.25), **answer}
    result = OptimizeResult(ineqlin=OptimizeResult(marginals=-fields.pop("y")), **fields)
    monkeypatch.setattr(linear_program, "linprog", lambda *_, **__: result)
    inputs = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    with pytest.raises(RuntimeError, match="linear program"):
        separating_weights(inputs, np.array([0, 0, 0, 1]), vocab_size=2, classes=2)


# Against training.


def test_small_data_sets_are_memorized_exactly_if_separable():
    # No plateau stop and no decay: nearly inseparable sets here need 300 to 420 epochs, others 50.
    patient = {"learning_rate": 0.1, "weight_decay": 0.0, "patience": 600, "max_epochs": 600}
    verdicts = []
    for n, seed in itertools.product((8, 12, 14, 16), range(6)):
        data = generate_mappings(n, vocab_size=3, seq_len=4, seed=seed)
        separable = all_separable(data, vocab_size=3)
        memorized = train_linear(data, vocab_size=3, seed=seed, **patient).memorized
        assert memorized == separable, f"n = {n}, seed {seed}"
        verdicts.append(separable)
    assert 5 <= sum(verdicts) <= len(verdicts) - 5  # both kinds were seen


@pytest.mark.parametrize(("n", "repeat"), [(64, 0), (128, 1), (200, 2)])
def test_a_memorized_probe_is_separable(n, repeat):
    probe = linear_probe(n, repeat)
    for engine, reason in (
        (choose_engine("fast", "cpu", *probe.kind), None),
        (LinearProgramEngine(), "perfect"),
    ):
        [(outcome, weights)] = engine.train([probe])
        assert outcome.memorized and outcome.accuracy == 1.0
        assert reason in (None, outcome.stop_reason)
    # What it found is the network that memorizes: the module says so itself.
    start = start_probe(probe)
    start.module.load_state_dict(weights())
    assert evaluate(start.module, *start.tensors()) == (outcome.loss, 1.0)
    assert outcome.epochs == probe.architecture.seq_len


def test_inseparable_at_full_size_is_never_memorized():
    probe = linear_probe(600)
    [(outcome, _)] = LinearProgramEngine().train([probe])
    assert not outcome.memorized and outcome.accuracy < 1.0
    assert (outcome.stop_reason, outcome.epochs) == ("inseparable", 1)
    for changes in ({}, {"patience": 200, "max_epochs": 200}):
        trained = dataclasses.replace(probe, protocol=MLP_SPEC.protocol(**changes))
        [(outcome, _)] = choose_engine("fast", "cpu", *probe.kind).train([trained])
        assert not outcome.memorized
        assert outcome.accuracy < 1.0


# The engine.


def test_it_stops_at_the_first_inseparable_position():
    seen = set()
    for n, repeat in itertools.product((10, 12, 14), range(4)):
        probe = linear_probe(n, repeat, vocab_size=3, seq_len=4)
        [(outcome, weights)] = LinearProgramEngine().train([probe])
        start = start_probe(probe)
        verdicts = [is_separable(start.inputs, labels, 3) for labels in start.targets.T]
        assert outcome.memorized == all(verdicts)
        first = verdicts.index(False) if False in verdicts else len(verdicts)
        assert outcome.epochs == min(first + 1, len(verdicts))
        rows = weights()["linears.0.weight"].reshape(4, 3, -1)
        assert (rows[first:] == 0).all()
        seen.add(first)
    assert len(seen) >= 3


def test_a_search_by_linear_program(tmp_path):
    task = {"vocab_size": 3, "seq_len": 4}
    architecture, protocol = MLPArchitecture(0, 0, **task), MLP_SPEC.protocol(**task)
    rows = find_threshold(
        architecture, protocol, repeats=1, workers=1, results_dir=tmp_path, engine="linear-program"
    )
    (row,) = rows.to_dict("records")
    assert row["protocol"] == "paper vocab_size=3 seq_len=4 engine=linear-program"
    for n, verdict in ((row["threshold"], True), (row["first_failure"], False)):
        start = start_probe(linear_probe(n, **task))
        assert all_separable(Mappings(start.inputs, start.targets), 3) == verdict
    reasons = set(pd.read_csv(tmp_path / "mlp_probes.csv")["stop_reason"])
    assert reasons == {"perfect", "inseparable"}


def test_another_size_has_other_data():
    smaller, larger = (start_probe(linear_probe(n)).inputs for n in (20, 21))
    assert (smaller != larger[:20]).any()


def test_it_takes_linear_models_alone():
    linear = MLPArchitecture(0, 0)
    assert choose_engine("linear-program", "cpu", linear, Protocol()) == LinearProgramEngine()
    with pytest.raises(UserError, match="linear model"):
        choose_engine("linear-program", "cpu", MLPArchitecture(49, 1), Protocol())
    with pytest.raises(UserError, match="--device cpu"):
        choose_engine("linear-program", "cuda", linear, Protocol())
    for protocol, attempt in ((MLP_SPEC.protocol("converged"), 0), (MLP_SPEC.paper, 1)):
        with pytest.raises(UserError, match="trains nothing"):
            LinearProgramEngine().train([Probe(linear, protocol, 0, 0, 2, attempt)])
