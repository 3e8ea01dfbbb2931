"""What one linear classifier per output position can memorize: exactly, by linear programming.

A position's logits are W x with x the one-hot input of T*V features. W gives every label if
(w_label - w_wrong) x > 0 for every mapping and every wrong class: linear inequalities in W. There
is no bias, because the features of an input position sum to 1, so weights can hold it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.optimize import linprog
from scipy.sparse import csr_array, hstack
from torch import nn

from training.loop import evaluate
from training.module import SequenceModel
from training.start import ProbeStart

# Of weights within [-1, 1]: beyond what float32 sums of ten of them, as the network makes, lose to
# rounding, and a thousand times what the solver leaves of zero.
SMALLEST_MARGIN = 1e-6
OPTIMAL = 0  # a status of linprog


def separating_weights(
    inputs: np.ndarray, labels: np.ndarray, vocab_size: int, classes: int
) -> np.ndarray | None:
    """Return weights (C, T*V) in [-1, 1] whose logits are largest at the labels, None if none are.

    ``inputs`` (N, T) are tokens out of V = ``vocab_size``, ``labels`` (N,) out of C = ``classes``.
    The margin, the least difference between the logit of a label and one of a wrong class, is as
    large as it can be; it counts as none up to
    SMALLEST_MARGIN. The answer does not rest on what the solver says of itself: weights are
    multiplied out, and that there are none follows from the dual solution y. For any y >= 0 whose
    elements sum to 1, no margin is larger than the 1-norm of y A (weak duality), A being
    :func:`_differences` of the free weights. Raises RuntimeError where neither proves anything.
    """
    # Nothing changes when all classes get the same added to their weights, nor when all tokens of
    # one input position do what those of another undo. Without that freedom it takes half as long.
    free = np.ones((classes, inputs.shape[1], vocab_size), bool)  # (class, position, token)
    free[0] = free[:, 1:, 0] = False
    differences = _differences(inputs, labels, vocab_size, classes)[
        :, free.ravel()
    ]  # (pairs, free)
    pairs, size = differences.shape
    # Variables: the weights and the margin. Maximised: the margin, below every difference.
    objective = np.zeros(size + 1)
    objective[-1] = -1.0
    bounds: list[tuple[float | None, float | None]] = [(-1.0, 1.0)] * size + [(None, None)]
    below: Any = hstack([-differences, csr_array(np.ones((pairs, 1)))], format="csc")
    program = linprog(
        objective, A_ub=below, b_ub=np.zeros(pairs), bounds=bounds, method="highs-ipm"
    )
    if program.status != OPTIMAL or program.x is None:
        raise RuntimeError(f"no solution of a linear program: {program.message}")
    if (differences @ program.x[:size]).min() > SMALLEST_MARGIN:
        weights = np.zeros(free.shape)
        weights[free] = program.x[:size]
        return weights.reshape(classes, -1)
    dual = np.maximum(-program.ineqlin.marginals, 0.0)  # (pairs,)
    bound = np.abs(dual @ differences).sum() / dual.sum()
    if not bound <= SMALLEST_MARGIN:  # NaN proves nothing either
        raise RuntimeError(f"a linear program is undecided: its margin is at most {bound:.1e}")
    return None


def _differences(
    inputs: np.ndarray, labels: np.ndarray, vocab_size: int, classes: int
) -> csr_array:
    """Return what multiplied by W gives logit of the label - logit of a wrong class.

    Rows are pairs of an example and a wrong class, (N*(C-1), C*T*V); W is flattened row by row.
    """
    n, seq_len = inputs.shape
    features = np.arange(seq_len) * vocab_size + inputs  # (N, T), where the one-hot input is 1
    wrong = (labels[:, None] + np.arange(1, classes)) % classes  # (N, C-1)
    shape = (n, classes - 1, seq_len)
    width = seq_len * vocab_size
    plus = np.broadcast_to((labels[:, None] * width + features)[:, None, :], shape)
    minus = wrong[:, :, None] * width + features[:, None, :]
    columns = np.stack([plus, minus])
    rows = np.broadcast_to(np.arange(n * (classes - 1)).reshape(n, -1, 1), columns.shape)
    values = np.broadcast_to(np.array([1.0, -1.0]).reshape(2, 1, 1, 1), columns.shape)
    entries = (values.ravel(), (rows.ravel(), columns.ravel()))
    return csr_array(entries, shape=(n * (classes - 1), classes * width))


def solve_positions(start: ProbeStart) -> tuple[SequenceModel, int, float, float]:
    """Solve one position after the other, up to the first without separating weights.

    Returns the probe's module with the weights that were found, the others being 0; for how many
    positions there are such weights; and its loss (nats per token) and share of correct tokens. A
    module whose one linear layer holds all positions is needed. Raises RuntimeError like
    :func:`separating_weights`, and where rounding to float32 lost a label.
    """
    module, task = start.module, start.probe.protocol.make_task()
    (linear,) = (layer for layer in module.modules() if isinstance(layer, nn.Linear))
    found: list[np.ndarray] = []
    for labels in start.targets.T:
        weights = separating_weights(start.inputs, labels, task.vocab_size, task.label_vocab_size)
        if weights is None:
            break
        found.append(weights)
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.zero_()
        if found:
            rows = np.concatenate(found)  # (positions * C, T*V)
            linear.weight[: len(rows)] = torch.from_numpy(rows)
    loss, accuracy = evaluate(module, *start.tensors())
    if len(found) == task.label_len and accuracy < 1.0:
        raise RuntimeError("weights that separate every position do not do so as float32")
    return module, len(found), loss, accuracy
