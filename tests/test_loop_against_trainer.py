"""The reference loop against ``transformers.Trainer``: same start, same batches, same story.

Every case names what it is (how it stops, whether it memorizes, a short last batch, the lowest
loss before the last epoch) and the test checks that the Trainer's run is indeed that.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from trainer_oracle import train_with_trainer

from mlp_experiments.mlp_utils import MLPArchitecture
from training.loop import train
from training.protocol import PRESETS
from training.spec import Architecture
from transformer_experiments.transformer_utils import TransformerArchitecture

# Both runs do the same arithmetic in the same order, so even long runs do not drift apart.
LOSS_TOLERANCE = 1e-5  # absolute, nats per token
WEIGHT_TOLERANCE = 1e-5  # absolute


@dataclass(frozen=True)
class Case:
    architecture: Architecture
    n: int
    stop_reason: str
    memorized: bool
    short_last_batch: bool = False
    lowest_before_last: bool = False
    changes: dict[str, float | str] = field(default_factory=dict)
    seed: int = 0


PUBLISHED_MLP = MLPArchitecture(hidden_size=49, num_layers=1)
PUBLISHED_TRANSFORMER = TransformerArchitecture(32, d_ff=380, num_heads=4, num_layers=1)
SMALL_TRANSFORMER = TransformerArchitecture(16, d_ff=40, num_heads=2, num_layers=2)

CASES = {
    "mlp perfect": Case(PUBLISHED_MLP, 64, "perfect", True),
    "mlp perfect, short last batch": Case(PUBLISHED_MLP, 45, "perfect", True, True),
    "mlp epoch limit": Case(PUBLISHED_MLP, 64, "max_epochs", False, changes={"max_epochs": 4}),
    "mlp plateau after its lowest loss": Case(
        MLPArchitecture(hidden_size=30, num_layers=5),
        64,
        "plateau",
        False,
        lowest_before_last=True,
        changes={"learning_rate": 3e-2},
    ),
    # Every epoch is the best so far, but none by more than min_delta.
    "mlp plateau of small gains": Case(
        PUBLISHED_MLP, 64, "plateau", False, changes={"learning_rate": 1e-6}
    ),
    # The epoch that reached 100 % is not the one whose weights are restored.
    "mlp perfect, then restored to less": Case(
        MLPArchitecture(hidden_size=20, num_layers=1, vocab_size=2, seq_len=3),
        4,
        "perfect",
        False,
        short_last_batch=True,
        lowest_before_last=True,
        changes={"learning_rate": 0.3, "max_epochs": 60},
        seed=6,
    ),
    # As before, but the weights of the perfect epoch are kept.
    "mlp perfect, its weights kept": Case(
        MLPArchitecture(hidden_size=20, num_layers=1, vocab_size=2, seq_len=3),
        4,
        "perfect",
        True,
        short_last_batch=True,
        lowest_before_last=True,
        changes={"learning_rate": 0.3, "max_epochs": 60, "verdict": "first_perfect"},
        seed=6,
    ),
    "mlp not perfect, lowest loss restored": Case(
        MLPArchitecture(hidden_size=30, num_layers=5),
        64,
        "plateau",
        False,
        lowest_before_last=True,
        changes={"learning_rate": 3e-2, "verdict": "first_perfect"},
    ),
    "mlp perfect at a third epoch": Case(
        PUBLISHED_MLP, 45, "perfect", True, True, changes={"evaluation_interval": 3}
    ),
    "mlp plateau of third epochs": Case(
        PUBLISHED_MLP,
        64,
        "plateau",
        False,
        changes={"learning_rate": 1e-6, "evaluation_interval": 3},
    ),
    "mlp epoch limit between third epochs": Case(
        PUBLISHED_MLP,
        64,
        "max_epochs",
        False,
        changes={"max_epochs": 7, "evaluation_interval": 3},
    ),
    "mlp step limit within an epoch": Case(
        PUBLISHED_MLP, 100, "max_steps", False, True, changes={"max_steps": 10}
    ),
    "transformer step limit, third epochs, cosine": Case(
        SMALL_TRANSFORMER,
        40,
        "max_steps",
        False,
        short_last_batch=True,
        changes={
            "max_steps": 15,
            "evaluation_interval": 3,
            "schedule": "cosine",
            "warmup_epochs": 2,
            "patience": 0,
        },
    ),
    "mlp converged": Case(
        MLPArchitecture(hidden_size=20, num_layers=2),
        90,
        "perfect",
        True,
        short_last_batch=True,
        changes={**PRESETS["converged"], "max_epochs": 400},
    ),
    "mlp without hidden layers, other settings": Case(
        MLPArchitecture(hidden_size=0, num_layers=0),
        70,
        "plateau",
        False,
        short_last_batch=True,
        changes={
            "learning_rate": 3e-3,
            "weight_decay": 0.5,
            "beta1": 0.8,
            "beta2": 0.99,
            "epsilon": 1e-4,
            "batch_size": 20,
            "max_epochs": 60,
            "patience": 4,
            "min_delta": 1e-2,
            "grad_clip": 0.05,
        },
    ),
    "mlp cosine with warm-up, no plateau stop": Case(
        MLPArchitecture(hidden_size=30, num_layers=5),
        45,
        "max_epochs",
        False,
        short_last_batch=True,
        changes={
            "learning_rate": 1e-2,
            "schedule": "cosine",
            "warmup_epochs": 3,
            "patience": 0,
            "max_epochs": 12,
        },
    ),
    "mlp linear with warm-up": Case(
        PUBLISHED_MLP, 64, "perfect", True, changes={"warmup_epochs": 5}
    ),
    "transformer constant with warm-up": Case(
        SMALL_TRANSFORMER,
        40,
        "max_epochs",
        False,
        short_last_batch=True,
        changes={"schedule": "constant", "warmup_epochs": 2, "patience": 0, "max_epochs": 8},
    ),
    "transformer perfect": Case(PUBLISHED_TRANSFORMER, 14, "perfect", True, True),
    "transformer perfect, two batches": Case(
        PUBLISHED_TRANSFORMER, 64, "perfect", True, changes={"learning_rate": 3e-3}
    ),
    "transformer epoch limit, short last batch": Case(
        PUBLISHED_TRANSFORMER, 40, "max_epochs", False, True, changes={"max_epochs": 3}
    ),
    "transformer plateau after its lowest loss": Case(
        SMALL_TRANSFORMER,
        40,
        "plateau",
        False,
        short_last_batch=True,
        lowest_before_last=True,
        changes={"learning_rate": 3e-2},
    ),
}


def _orders(seed: int, n: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng([seed, n])
    while True:
        yield generator.permutation(n)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_same_run(case, tmp_path):
    task = case.architecture
    changes = {"dropout": 0.0, **case.changes}
    protocol = task.spec.protocol(vocab_size=task.vocab_size, seq_len=task.seq_len, **changes)
    generator = np.random.default_rng(case.seed)
    tokens = generator.integers(0, task.vocab_size, (2, case.n, task.seq_len))
    inputs, labels = torch.from_numpy(tokens)
    torch.manual_seed(case.seed)
    model = task.spec.build(task, 0.0)
    start = copy.deepcopy(model)

    records = []
    result = train(
        model, inputs, labels, protocol, _orders(case.seed, case.n), on_epoch=records.append
    )
    oracle = train_with_trainer(
        start, inputs, labels, protocol, _orders(case.seed, case.n), tmp_path
    )

    # The Trainer's run is the case it is listed as.
    oracle_losses = [record.loss for record in oracle.records]
    assert oracle.result.stop_reason == case.stop_reason
    assert oracle.result.memorized == case.memorized
    assert (case.n % protocol.batch_size != 0) == case.short_last_batch
    lowest_epoch = oracle.records[oracle_losses.index(min(oracle_losses))].epoch
    assert (lowest_epoch < oracle.result.epochs) == case.lowest_before_last

    # Ours is the same, epoch by epoch, and in its verdict.
    assert result.epochs == records[-1].epoch == oracle.result.epochs
    assert result.stop_reason == oracle.result.stop_reason
    assert result.memorized == oracle.result.memorized
    assert result.accuracy == oracle.result.accuracy
    assert result.loss == pytest.approx(oracle.result.loss, rel=0, abs=LOSS_TOLERANCE)
    assert [r.epoch for r in records] == [r.epoch for r in oracle.records]
    assert [r.accuracy for r in records] == [r.accuracy for r in oracle.records]
    assert [r.loss for r in records] == pytest.approx(oracle_losses, rel=0, abs=LOSS_TOLERANCE)
    assert [r.learning_rate for r in records] == pytest.approx(
        [r.learning_rate for r in oracle.records], rel=1e-12, abs=0
    )
    for name, weights in model.state_dict().items():
        torch.testing.assert_close(weights, oracle.weights[name], rtol=0, atol=WEIGHT_TOLERANCE)


def test_cases_cover_both_models():
    for model in ("mlp", "transformer"):
        cases = [case for case in CASES.values() if case.architecture.spec.name == model]
        reasons = {"perfect", "plateau", "max_epochs", "max_steps"}
        assert {case.stop_reason for case in cases} == reasons
        assert {case.short_last_batch for case in cases} == {True, False}
        assert {case.lowest_before_last for case in cases} == {True, False}
