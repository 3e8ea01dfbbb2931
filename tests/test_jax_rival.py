"""The JAX rival of the step times against the reference loop, and its process."""

import copy

import numpy as np
import pytest
import torch
from native_runs import Run

from mlp_experiments.mlp_utils import SPEC as MLP_SPEC
from mlp_experiments.mlp_utils import MLPArchitecture
from training.loop import evaluate
from training.probe import Probe
from transformer_experiments.transformer_utils import TransformerArchitecture

pytest.importorskip("jax")
import jax_step

EPOCHS = 2


def rival(run):
    """Return the JAX model of a run."""
    return jax_step.JaxModel(run.start())


@pytest.mark.parametrize(
    "architecture, changes",
    [
        (MLPArchitecture(49, 1), {}),
        (MLPArchitecture(33, 2), {"weight_decay": 0.5, "learning_rate": 1e-3}),
        (MLPArchitecture(49, 1), {"grad_clip": 0.0}),
        (MLPArchitecture(49, 1), {"schedule": "cosine", "warmup_epochs": 1}),
        (MLPArchitecture(49, 1), {"schedule": "constant", "init": "orthogonal"}),
        (TransformerArchitecture(32, 380, 4, 1), {}),
        (TransformerArchitecture(16, 24, 8, 2), {"weight_decay": 0.5, "grad_clip": 0.1}),
    ],
    ids=str,
)
def test_losses_and_weights_are_those_of_the_reference(architecture, changes):
    run = Run(architecture, 128, dropout=0.0, max_epochs=EPOCHS, **changes)
    module, records = run.reference()
    model, epochs, copied = rival(run), run.epochs(), copy.deepcopy(run.module)
    for record in records:
        model.train_epoch(*next(epochs))
        copied.load_state_dict(model.state_dict())
        loss, _ = evaluate(copied, *run.tensors())
        assert loss == pytest.approx(record.loss, rel=1e-4)
    assert len(records) == EPOCHS
    assert records[1].loss < records[0].loss  # so that the reference kept the last weights
    for name, weight in model.state_dict().items():
        expected = module.state_dict()[name]
        if name.endswith("in_proj_bias"):
            # A key bias has no effect, so its gradient is rounding, which AdamW makes large.
            weight, expected = (torch.cat(x.chunk(3)[::2]) for x in (weight, expected))
        torch.testing.assert_close(weight, expected, rtol=1e-4, atol=1e-4)


def test_dropout_drops_its_share_and_other_elements_every_time():
    jnp = pytest.importorskip("jax.numpy")
    draws = []
    for step in (0, 1):
        drop = jax_step._dropout(0.1, jnp.float32(step))
        draws += [np.asarray(drop(jnp.ones((32, 1000)))) for _ in range(2)]
    for draw in draws:
        assert np.mean(draw == 0) == pytest.approx(0.1, abs=0.006)
        assert draw.max() == pytest.approx(1 / 0.9, rel=1e-3)
    zeros = np.array([draw.ravel() == 0 for draw in draws], float)
    assert np.abs(np.corrcoef(zeros) - np.eye(4)).max() < 0.03


def test_training_with_dropout_learns():
    run = Run(TransformerArchitecture(16, 24, 2, 1), 64, dropout=0.1, max_epochs=50)
    model, epochs = rival(run), run.epochs()
    before, _ = evaluate(run.module, *run.tensors())
    for _ in range(20):
        model.train_epoch(*next(epochs))
    run.module.load_state_dict(model.state_dict())
    assert evaluate(run.module, *run.tensors())[0] < before


def test_a_short_last_batch_is_refused():
    with pytest.raises(ValueError, match="whole batches"):
        rival(Run(MLPArchitecture(4, 1), 33))


def test_the_process_measures_an_epoch():
    probe = Probe(MLPArchitecture(8, 1), MLP_SPEC.protocol(), 0, 0, 64)
    epoch, compile_seconds = jax_step.jax_epoch(probe)
    assert 0 < epoch() < compile_seconds
