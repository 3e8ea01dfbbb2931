"""Depth 0 against linear programming.

The MLP without hidden layers is one linear classifier per output position, on one-hot features.
Whether such classifiers can memorize a data set is a linear program, so it is known exactly.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from dataset.synthetic_generator import Mappings, generate_mappings
from mlp_experiments.mlp_utils import SPEC as MLP_SPEC
from mlp_experiments.mlp_utils import MLPArchitecture
from training.loop import TrainingResult, train

FEASIBLE, INFEASIBLE = 0, 2  # statuses of scipy.optimize.linprog


def is_separable(inputs: np.ndarray, labels: np.ndarray, vocab_size: int) -> bool:
    """Can a linear classifier on one-hot ``inputs`` (N, T) give every label of ``labels`` (N,)?

    Looks for weights (V, V*T) whose score of the right class is at least 1 above that of every
    wrong class. There is no bias: the one-hot features of a position sum to 1.
    """
    n = len(inputs)
    one_hot = np.eye(vocab_size)[inputs].reshape(n, -1)  # (N, V*T)
    right, wrong = np.repeat(labels, vocab_size), np.tile(np.arange(vocab_size), n)
    pairs = right != wrong
    difference = (np.eye(vocab_size)[wrong] - np.eye(vocab_size)[right])[pairs]  # (pairs, V)
    features = np.repeat(one_hot, vocab_size, axis=0)[pairs]  # (pairs, V*T)
    scores = (difference[:, :, None] * features[:, None, :]).reshape(len(features), -1)
    program = linprog(
        np.zeros(scores.shape[1]),
        A_ub=scores,
        b_ub=-np.ones(len(scores)),
        bounds=(None, None),
        method="highs-ipm",
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


def test_the_program_knows_and_from_xor():
    inputs = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    assert is_separable(inputs, np.array([0, 0, 0, 1]), vocab_size=2)
    assert not is_separable(inputs, np.array([0, 1, 1, 0]), vocab_size=2)
    # With a third class for one of the corners a line does for each.
    assert is_separable(inputs, np.array([0, 1, 1, 2]), vocab_size=3)


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


@pytest.mark.parametrize("n", [64, 128])
def test_memorized_at_full_size_means_separable(n):
    data = generate_mappings(n, vocab_size=10, seq_len=10, seed=0)
    assert train_linear(data, vocab_size=10).memorized
    assert all_separable(data, vocab_size=10)


def test_inseparable_at_full_size_is_never_memorized():
    data = generate_mappings(600, vocab_size=10, seq_len=10, seed=0)
    assert not is_separable(data.inputs, data.labels[:, 0], vocab_size=10)
    for changes in ({}, {"patience": 200, "max_epochs": 200}):
        result = train_linear(data, vocab_size=10, **changes)
        assert not result.memorized
        assert result.accuracy < 1.0
