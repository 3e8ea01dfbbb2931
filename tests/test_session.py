"""The session's policy against the flat loop: with the same arithmetic, the same bits."""

import dataclasses

import pytest
import torch
import toy_reader
from flat_loop import train_flat

from engines.engine import ReferenceEngine
from mlp_experiments.mlp_utils import MLPArchitecture
from training.probe import Probe
from transformer_experiments.transformer_utils import TransformerArchitecture

MLP = MLPArchitecture(12, 1)
TRANSFORMER = TransformerArchitecture(8, 12, 2, 1)

CASES = {
    "perfect": (MLP, 40, {}, "perfect"),
    "plateau": (MLPArchitecture(3, 4), 60, {}, "plateau"),
    "epoch limit": (MLP, 200, {"max_epochs": 4}, "max_epochs"),
    "step limit within an epoch": (MLP, 100, {"max_steps": 10}, "max_steps"),
    "diverged": (MLP, 40, {"learning_rate": 1e10, "grad_clip": 0.0}, "diverged"),
    "cosine": (MLP, 40, {"schedule": "cosine", "warmup_epochs": 2, "max_epochs": 30}, None),
    "no plateau": (MLPArchitecture(3, 4), 60, {"patience": 0, "max_epochs": 25}, "max_epochs"),
    "best before the end": (MLP, 60, {"learning_rate": 1.0, "schedule": "constant"}, "plateau"),
    "every third epoch": (MLP, 40, {"evaluation_interval": 3}, "perfect"),
    "first perfect": (MLP, 40, {"verdict": "first_perfect", "learning_rate": 0.05}, "perfect"),
    "orthogonal": (MLPArchitecture(12, 3), 40, {"init": "orthogonal"}, None),
    "dropout and a short last batch": (TRANSFORMER, 45, {"max_epochs": 6}, "max_epochs"),
    "orthogonal transformer": (TRANSFORMER, 20, {"init": "orthogonal", "max_epochs": 5}, None),
    "ignored targets": (toy_reader.PairArchitecture(), 40, {"max_epochs": 6}, None),
}


@pytest.mark.parametrize("attempt", [0, 1])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_same_bits_as_the_flat_loop(case, attempt):
    architecture, n, changes, stop_reason = case
    probes = [
        Probe(architecture, architecture.spec.protocol(**changes), 0, repeat, n, attempt)
        for repeat in range(2)
    ]
    records = []
    trained = ReferenceEngine().train(probes, records.append)
    for probe, (outcome, weights) in zip(probes, trained, strict=True):
        expected_records = []
        expected, module = train_flat(probe, expected_records.append)
        assert stop_reason in (None, expected.stop_reason)
        ours = dataclasses.asdict(outcome)
        assert ours.pop("seconds") > 0
        assert repr(ours) == repr(dataclasses.asdict(expected))  # repr: NaN equals NaN
        for name, value in module.state_dict().items():
            assert torch.equal(weights()[name].nan_to_num(), value.nan_to_num()), name
        if probe is probes[0]:
            assert repr(records) == repr(expected_records)
