"""The compiled transformers against autograd and the reference loop, from the same streams."""

import copy
import itertools

import numpy as np
import pytest
import torch
from native_runs import Run
from torch.nn import functional as F

from engines.native.load import load_engine
from mlp_experiments.mlp_utils import MLPArchitecture
from training.loop import evaluate
from training.module import draw_step_masks
from training.spec import Architecture
from transformer_experiments.decoder_only_utils import DecoderOnlyArchitecture
from transformer_experiments.transformer_utils import TransformerArchitecture

pytestmark = pytest.mark.skipif(load_engine() is None, reason="no compiled engine")


class ShakenRun(Run):
    """A run that starts from moved parameters."""

    def __init__(self, architecture, n, **changes):
        super().__init__(architecture, n, **changes)
        shake(self.module)


def shake(module):
    """Move every parameter: fresh ones have equal layers, zero biases and idle norms."""
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = rng.standard_normal(tuple(parameter.shape)).astype(np.float32)
            parameter.add_(torch.from_numpy(noise), alpha=0.05)


def shape(hidden_size, d_ff, num_heads, num_layers, vocab_size=10, seq_len=10):
    return TransformerArchitecture(
        hidden_size, d_ff, num_heads, num_layers, vocab_size=vocab_size, seq_len=seq_len
    )


def causal(hidden_size, d_ff, num_heads, num_layers, vocab_size=10, seq_len=10):
    return DecoderOnlyArchitecture(
        hidden_size, d_ff, num_heads, num_layers, vocab_size=vocab_size, seq_len=seq_len
    )


def by_name(value):
    return f"{value.spec.name} {value.name}" if isinstance(value, Architecture) else None


SHAPES = [
    shape(32, 380, 4, 1),
    shape(64, 83, 32, 3),
    shape(128, 175, 1, 3),
    shape(128, 140, 64, 1),
    shape(32, 40, 8, 2),
    shape(32, 40, 1, 1),
    # Widths that are no multiple of a vector, every feature a head, other tasks.
    shape(15, 7, 5, 2),
    shape(15, 7, 15, 1, vocab_size=7, seq_len=4),
    shape(33, 17, 1, 2, vocab_size=3, seq_len=17),
    shape(42, 300, 2, 2, vocab_size=11, seq_len=9),
    shape(24, 1, 2, 3, vocab_size=40, seq_len=2),
    shape(36, 9, 12, 1, vocab_size=5, seq_len=8),
    shape(3, 1, 3, 1, vocab_size=30, seq_len=3),
    # The decoder-only model: heads of 16, 8, 64, 32 and 4 features, then odd ones.
    causal(64, 256, 4, 1),
    causal(64, 100, 8, 2),
    causal(64, 83, 1, 3),
    causal(64, 40, 2, 2),
    causal(32, 40, 8, 1),
    causal(15, 7, 5, 2),
    causal(15, 7, 15, 1, vocab_size=7, seq_len=4),
    causal(33, 17, 1, 2, vocab_size=3, seq_len=17),
    causal(42, 300, 2, 3, vocab_size=11, seq_len=9),
    causal(24, 1, 2, 3, vocab_size=40, seq_len=2),
    causal(36, 9, 12, 1, vocab_size=40, seq_len=1),
    causal(3, 1, 3, 2, vocab_size=30, seq_len=3),
]


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("count", [8, 5])
@pytest.mark.parametrize("architecture", SHAPES, ids=by_name)
def test_gradient(architecture, count, dropout):
    # With betas of 0, AdamW steps by rate * g / (|g| + epsilon), which is solved for the gradient
    # g here; the large numbers keep g above the rounding of the weights. 5 is a short batch.
    rate, epsilon = 1e6, 1e4
    run = ShakenRun(
        *(architecture, count),
        batch_size=8,
        dropout=dropout,
        learning_rate=rate,
        epsilon=epsilon,
        beta1=0.0,
        beta2=0.0,
        weight_decay=0.0,
        grad_clip=0.0,
    )
    order = np.random.default_rng(3).permutation(count)
    native = run.native()
    before = native.state_dict()
    native.train_epoch(*run.epoch(order))
    steps = {k: (before[k] - v).double() for k, v in native.state_dict().items()}

    module = copy.deepcopy(run.module).double().train()
    inputs, labels = (x[torch.from_numpy(order)] for x in run.tensors())
    if dropout > 0:
        draw_step_masks(module.dropout_sites(), run.masks(), 8, inputs.device)
    F.cross_entropy(module(inputs).flatten(0, 1), labels.flatten()).backward()
    largest = max(float(p.grad.abs().max()) for p in module.parameters())
    for name, parameter in module.named_parameters():
        gradient = steps[name] * epsilon / (rate - steps[name].abs())
        # The tolerance is absolute: a weight's float rounds its step, 100 * g, to 6e-8 of itself.
        np.testing.assert_allclose(
            gradient, parameter.grad, rtol=1e-4, atol=2e-6 * largest + 4e-9, err_msg=name
        )


@pytest.mark.parametrize(
    "architecture", [*SHAPES, shape(1, 1, 1, 1), causal(1, 1, 1, 1)], ids=by_name
)
def test_evaluation(architecture):
    run = ShakenRun(architecture, 75 if architecture.seq_len > 2 else 20)
    loss, accuracy = run.native().evaluate()
    expected_loss, expected_accuracy = evaluate(run.module, *run.tensors())
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert accuracy == expected_accuracy


@pytest.mark.parametrize(
    ("architecture", "parameter"),
    [(shape(32, 40, 4, 1), "head.bias"), (causal(32, 40, 4, 1), "token_embedding.weight")],
)
def test_nan_logits_count_as_wrong(architecture, parameter):
    run = ShakenRun(architecture, 10)
    with torch.no_grad():
        run.module.get_parameter(parameter)[3] = float("nan")
    loss, accuracy = run.native().evaluate()
    assert np.isnan(loss)
    assert accuracy == evaluate(run.module, *run.tensors())[1] == 0.0


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("n", [2, 20, 33, 64, 75])
@pytest.mark.parametrize("architecture", [shape(32, 380, 4, 1), causal(32, 40, 4, 1)], ids=by_name)
def test_losses_of_fifty_epochs(architecture, n, dropout):
    run = ShakenRun(architecture, n, dropout=dropout)
    native, epochs = run.native(), run.epochs()
    _, records = run.reference()
    for record in records:
        order, rates = next(epochs)
        native.train_epoch(order, rates)
        loss, accuracy = native.evaluate()
        assert loss == pytest.approx(record.loss, rel=1e-4), f"epoch {record.epoch}"
        # Two logits of a token may be closer than rounding.
        assert accuracy == pytest.approx(record.accuracy, abs=1.5 / run.inputs.size)
        assert rates[-1] == record.learning_rate
    assert len(records) == 50 or records[-1].accuracy == 1.0


@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        (shape(64, 83, 32, 3), {}),
        (shape(128, 175, 1, 3), {}),
        (shape(33, 17, 3, 2, vocab_size=6, seq_len=7), {"batch_size": 7, "dropout": 0.5}),
        (shape(32, 40, 8, 2), {"grad_clip": 1e-2, "weight_decay": 1.0, "beta1": 0.5}),
        (shape(32, 40, 1, 1), {"batch_size": 50, "grad_clip": 0.0}),
        (causal(64, 256, 4, 1), {}),
        (causal(64, 83, 8, 3), {"dropout": 0.0}),
        (causal(33, 17, 3, 2, vocab_size=6, seq_len=7), {"batch_size": 7, "dropout": 0.5}),
        (causal(32, 40, 2, 2), {"grad_clip": 1e-2, "weight_decay": 1.0, "beta1": 0.5}),
        (causal(32, 40, 1, 1), {"batch_size": 50, "grad_clip": 0.0}),
    ],
    ids=str,
)
def test_weights_after_some_epochs(architecture, changes):
    run = ShakenRun(architecture, 40, max_epochs=3, **changes)
    native, epochs = run.native(), run.epochs()
    module, records = run.reference()
    for record in records:
        native.train_epoch(*next(epochs))
        assert native.evaluate()[0] == pytest.approx(record.loss, rel=1e-5)
    trained, d = native.state_dict(), architecture.hidden_size
    for name, expected in module.state_dict().items():
        got = trained[name]
        if name.endswith(("in_proj_bias", "in_proj.bias")):
            # A key bias has no effect, so its gradient is rounding, which AdamW makes large.
            got, expected = (torch.cat([x[:d], x[2 * d :]]) for x in (got, expected))
        np.testing.assert_allclose(got, expected, atol=1e-4, err_msg=name)


MLPS = [MLPArchitecture(49, 1), MLPArchitecture(0, 0), MLPArchitecture(33, 3)]


def test_weights_come_and_go():
    for architecture in [*MLPS, *SHAPES[:7], causal(15, 7, 5, 2), causal(64, 83, 1, 3)]:
        run = ShakenRun(architecture, 10)
        native = run.native()
        for name, value in native.state_dict().items():
            assert torch.equal(value, run.module.state_dict()[name]), name
        saved, score = native.weights(), native.evaluate()
        native.train_epoch(*run.epoch(np.arange(10)))
        assert native.evaluate() != score
        native.load_weights(saved)
        assert native.evaluate() == score


@pytest.mark.parametrize(
    "architecture", [*MLPS, *SHAPES[:5], causal(64, 256, 4, 1), causal(64, 100, 8, 2)], ids=by_name
)
def test_bits_do_not_depend_on_what_else_runs(architecture):
    run = ShakenRun(architecture, 40, dropout=0.1)
    alone, first, second = run.native(), run.native(), run.native()
    neighbour = ShakenRun(SHAPES[6], 9)
    other = neighbour.native()
    epochs = list(itertools.islice(run.epochs(), 2))
    for epoch in epochs:
        alone.train_epoch(*epoch)
    for epoch in epochs:
        first.train_epoch(*epoch)
        other.train_epoch(*neighbour.epoch(np.arange(9)))
        second.train_epoch(*epoch)
        other.evaluate()
    assert alone.evaluate() == first.evaluate() == second.evaluate()
    assert np.array_equal(alone.weights(), first.weights())
    assert np.array_equal(alone.weights(), second.weights())
