"""The stopping rules: by table, against the Trainer's own callback, and when a run diverges."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from transformers import EarlyStoppingCallback, Trainer, TrainerControl
from transformers.trainer_utils import SaveStrategy

from mlp_experiments.mlp_utils import MLPArchitecture
from training.loop import train
from training.protocol import Protocol
from training.stopping import STOP_REASONS, Stopping
from transformer_experiments.transformer_utils import TransformerArchitecture

NAN, INF = float("nan"), float("inf")


def run(epochs: list[tuple[float, float]], **settings) -> tuple[int, str | None, int]:
    """Feed (loss, accuracy) pairs until a stop: (epochs, stop reason, epoch of the weights kept).

    Every epoch has two steps, of 32 mappings each.
    """
    stopping = Stopping(Protocol(**settings), n=64)
    lowest = 0
    for loss, accuracy in epochs:
        if not stopping.is_due():
            continue
        keep, reason = stopping.after(loss, accuracy)
        if keep:
            lowest = stopping.epochs
        if reason is not None:
            return stopping.epochs, reason, lowest
    return stopping.epochs, None, lowest


def losses(*values: float) -> list[tuple[float, float]]:
    return [(value, 0.5) for value in values]


def steady(gain: float, epochs: int = 10) -> list[tuple[float, float]]:
    return losses(*(1.0 - gain * epoch for epoch in range(epochs)))


TABLE = {
    # name: (epochs, settings, expected (epochs, stop reason, epoch of lowest loss))
    "first epoch is an improvement": (losses(9.0), {}, (1, None, 1)),
    "first epoch of a huge loss is one, too": (losses(1e30), {"patience": 1}, (1, None, 1)),
    "constant loss": (losses(1, 1, 1, 1, 1), {}, (4, "plateau", 1)),
    "patience 0 waits for ever": (losses(1, 1, 2, 2, 2, 3), {"patience": 0}, (6, None, 1)),
    "rising loss": (losses(1, 2, 3, 4, 5), {}, (4, "plateau", 1)),
    "best moves on any decrease": (steady(0.9e-4), {}, (4, "plateau", 4)),
    "gains above min_delta": (steady(1.1e-4), {}, (10, None, 10)),
    "a gain of exactly min_delta is none": (
        losses(1.0, 0.75, 0.5, 0.25, 0.0),
        {"min_delta": 0.25},
        (4, "plateau", 4),
    ),
    "min_delta 0 takes any decrease": (steady(1e-9), {"min_delta": 0.0}, (10, None, 10)),
    "min_delta 0 wants a decrease": (losses(1, 1, 1, 1), {"min_delta": 0.0}, (4, "plateau", 1)),
    "an improvement resets the count": (
        losses(1, 1, 1, 0.9, 0.9, 0.9, 0.9),
        {},
        (7, "plateau", 4),
    ),
    "compared with the best, not the last": (
        losses(0.5, 0.9, 0.7, 0.6, 0.4),
        {},
        (4, "plateau", 1),
    ),
    "patience 1": (losses(1, 0.9, 0.9, 0.1), {"patience": 1}, (3, "plateau", 2)),
    "perfect": ([(1.0, 0.9), (0.5, 1.0), (0.1, 1.0)], {}, (2, "perfect", 2)),
    "perfect in the first epoch": ([(1.0, 1.0)], {}, (1, "perfect", 1)),
    "perfect is not nearly perfect": ([(0.1, 1 - 1e-9)], {}, (1, None, 1)),
    "perfect beats plateau": (
        [(1.0, 0.9), (1.0, 0.9), (1.0, 0.9), (1.0, 1.0)],
        {},
        (4, "perfect", 1),
    ),
    "perfect beats the limit": ([(1.0, 0.9), (0.9, 1.0)], {"max_epochs": 2}, (2, "perfect", 2)),
    "perfect, but an earlier loss is lower": (
        [(0.3, 0.9), (0.4, 1.0)],
        {},
        (2, "perfect", 1),
    ),
    "first_perfect keeps the perfect epoch": (
        [(0.3, 0.9), (0.4, 1.0)],
        {"verdict": "first_perfect"},
        (2, "perfect", 2),
    ),
    "first_perfect keeps the lowest loss before": (
        losses(0.3, 0.4, 0.5, 0.6),
        {"verdict": "first_perfect"},
        (4, "plateau", 1),
    ),
    "patience counts evaluations": (
        losses(1, 1, 1, 1, 1, 1, 1, 1, 1),
        {"evaluation_interval": 2},
        (8, "plateau", 2),
    ),
    "between evaluations nothing counts": (
        [(1.0, 0.5), (NAN, 1.0), (0.9, 0.5)],
        {"evaluation_interval": 3},
        (3, None, 3),
    ),
    "the last epoch is evaluated": (
        losses(3, 2, 1, 0.5),
        {"max_epochs": 4, "evaluation_interval": 3},
        (4, "max_epochs", 4),
    ),
    "step limit": (losses(3, 2, 1, 0.5), {"max_steps": 4}, (2, "max_steps", 2)),
    "step limit within an epoch": (losses(3, 2, 1, 0.5), {"max_steps": 5}, (3, "max_steps", 3)),
    "step limit before the evaluation is due": (
        losses(3, 2, 1, 0.5),
        {"max_steps": 5, "evaluation_interval": 2},
        (3, "max_steps", 3),
    ),
    "epochs end before the steps do": (
        losses(3, 2, 1),
        {"max_epochs": 2, "max_steps": 5},
        (2, "max_epochs", 2),
    ),
    "as many steps as the epochs have": (
        losses(3, 2, 1),
        {"max_epochs": 2, "max_steps": 4},
        (2, "max_epochs", 2),
    ),
    "perfect at the step limit": ([(3, 0.5), (2, 1.0)], {"max_steps": 4}, (2, "perfect", 2)),
    "limit": (losses(3, 2, 1, 0.5), {"max_epochs": 3}, (3, "max_epochs", 3)),
    "limit of one epoch": (losses(3), {"max_epochs": 1}, (1, "max_epochs", 1)),
    "plateau at the limit": (losses(1, 1, 1, 1), {"max_epochs": 4}, (4, "plateau", 1)),
    "nan": (losses(1, NAN), {}, (2, "diverged", 1)),
    "inf": (losses(1, 0.5, INF), {}, (3, "diverged", 2)),
    "nan in the first epoch": (losses(NAN), {}, (1, "diverged", 0)),
    "minus infinity": (losses(1, -INF), {}, (2, "diverged", 1)),
    "nan beats perfect": ([(NAN, 1.0)], {}, (1, "diverged", 0)),
}


@pytest.mark.parametrize("epochs, settings, expected", TABLE.values(), ids=TABLE.keys())
def test_table(epochs, settings, expected):
    assert run(epochs, **settings) == expected
    assert expected[1] is None or expected[1] in STOP_REASONS


def trainer_stops_after(values: list[float], patience: int, min_delta: float) -> tuple[int, int]:
    """Return (epoch at which the Trainer stops, or 0; epoch whose weights it keeps)."""
    callback = EarlyStoppingCallback(patience, min_delta)
    trainer = SimpleNamespace(
        args=SimpleNamespace(
            greater_is_better=False,
            metric_for_best_model="loss",
            save_strategy=SaveStrategy.EPOCH,
        ),
        state=SimpleNamespace(best_metric=None, best_global_step=0, global_step=0),
    )
    control = TrainerControl()
    for epoch, value in enumerate(values, start=1):
        trainer.state.global_step = epoch
        metrics = {"eval_loss": value}
        callback.on_evaluate(trainer.args, trainer.state, control, metrics)
        Trainer._determine_best_metric(trainer, metrics, trial=None)
        if control.should_training_stop:
            return epoch, trainer.state.best_global_step
    return 0, trainer.state.best_global_step


def random_losses(generator: np.random.Generator, min_delta: float) -> list[float]:
    """A random walk whose steps are of the order of min_delta, with ties and a few jumps."""
    steps = generator.normal(-0.5, 1.0, 40) * min_delta
    steps[generator.random(40) < 0.2] = 0.0
    steps[generator.random(40) < 0.1] *= 100
    return (1.0 + np.cumsum(steps)).tolist()


@pytest.mark.parametrize("patience", [1, 2, 3, 7])
@pytest.mark.parametrize("min_delta", [0.0, 1e-4, 1e-2])
def test_same_as_the_trainers_callback(patience, min_delta):
    generator = np.random.default_rng(patience)
    stopped = 0
    for _ in range(500):
        values = random_losses(generator, min_delta or 1e-4)
        epoch, best = trainer_stops_after(values, patience, min_delta)
        epochs, reason, lowest = run(losses(*values), patience=patience, min_delta=min_delta)
        assert (epochs if reason else 0, lowest) == (epoch, best)
        assert reason == ("plateau" if epoch else None)
        stopped += reason is not None
    assert stopped > 100


def train_on_random_tokens(architecture, n: int, spoil: int | None = None, **changes):
    """Train on random tokens; return (result, per-epoch records, model).

    After epoch ``spoil`` (0: before the first) the first weights turn into NaN.
    """
    generator = np.random.default_rng(0)
    inputs, labels = torch.from_numpy(generator.integers(0, 10, (2, n, 10)))
    torch.manual_seed(0)
    model = architecture.spec.build(architecture, 0.0)
    orders = (generator.permutation(n) for _ in itertools.count())
    records = []

    def spoil_after(epoch):
        if epoch == spoil:
            nn.init.constant_(next(model.parameters()), NAN)

    def on_epoch(record):
        records.append(record)
        spoil_after(record.epoch)

    spoil_after(0)

    protocol = architecture.spec.protocol(dropout=0.0, **changes)
    result = train(model, inputs, labels, protocol, orders, on_epoch=on_epoch)
    return result, records, model


@pytest.mark.parametrize(
    "architecture",
    [MLPArchitecture(0, 0), MLPArchitecture(49, 1), TransformerArchitecture(16, 8, 2, 1)],
    ids=lambda architecture: architecture.name,
)
@pytest.mark.parametrize("grad_clip", [0.0, 1.0])
def test_divergence_is_a_failed_run(architecture, grad_clip):
    result, records, _ = train_on_random_tokens(
        architecture,
        40,
        learning_rate=1e10,
        grad_clip=grad_clip,
        patience=500,  # so that nothing but divergence stops it
    )
    assert result.stop_reason == "diverged"
    assert not result.memorized
    assert 0.0 <= result.accuracy < 1.0
    assert result.epochs == len(records)


def test_divergence_restores_the_best_weights_before_it():
    result, records, model = train_on_random_tokens(MLPArchitecture(49, 1), 40, spoil=5)
    assert (result.stop_reason, result.epochs, result.memorized) == ("diverged", 6, False)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    lowest = min(record.loss for record in records[:5])
    assert result.loss == pytest.approx(lowest, abs=1e-6)


def test_divergence_in_the_first_epoch():
    result, _, _ = train_on_random_tokens(MLPArchitecture(49, 1), 40, spoil=0)
    assert (result.stop_reason, result.epochs, result.memorized) == ("diverged", 1, False)
