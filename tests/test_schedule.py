"""Learning rates against torch's and the Trainer's schedulers, and the same bits everywhere."""

import hashlib
import math

import numpy as np
import pytest
import torch
from transformers import get_scheduler

from dataset.portable_math import cos_pi
from mlp_experiments.mlp_utils import SPEC as MLP_SPEC
from training.schedule import SCHEDULES, learning_rates, total_steps

NAMES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}
# What every machine has to arrive at: SHA-256 of 40 epochs of every schedule, little-endian.
DIGEST = "6a31ecf8288f21b024229a9165bb85384715b19e71cb3a1fe5bd9fdef83ac766"


def all_rates(protocol, n):
    return np.concatenate([learning_rates(protocol, n, e) for e in range(protocol.max_epochs)])


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 1, 7])
@pytest.mark.parametrize("n", [1, 32, 77])
def test_the_trainers_schedules(schedule, warmup, n):
    protocol = MLP_SPEC.protocol(schedule=schedule, warmup_epochs=warmup, max_epochs=20)
    steps = math.ceil(n / protocol.batch_size)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=protocol.learning_rate)
    scheduler = get_scheduler(NAMES[schedule], optimizer, warmup * steps, 20 * steps)
    expected = []
    for _ in range(20 * steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    rates = all_rates(protocol, n)
    np.testing.assert_allclose(rates, expected, rtol=1e-12, atol=1e-17)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("max_steps", [1, 5, 6, 13, 59])
def test_max_steps_is_the_horizon_as_the_trainers_is(schedule, max_steps):
    protocol = MLP_SPEC.protocol(
        schedule=schedule, warmup_epochs=2, max_epochs=20, max_steps=max_steps
    )
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=protocol.learning_rate)
    scheduler = get_scheduler(NAMES[schedule], optimizer, 2 * 3, max_steps)
    expected = []
    for _ in range(max_steps):
        expected.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert total_steps(protocol, 77) == max_steps
    np.testing.assert_allclose(all_rates(protocol, 77), expected, rtol=1e-12, atol=1e-17)


def test_the_published_decay_keeps_its_bits():
    protocol = MLP_SPEC.protocol()
    total = 500 * 3
    expected = [protocol.learning_rate * (total - step) / total for step in range(total)]
    assert all_rates(protocol, 77).tolist() == expected


def test_the_bits_are_pinned():
    digest = hashlib.sha256()
    for schedule in SCHEDULES:
        protocol = MLP_SPEC.protocol(schedule=schedule, warmup_epochs=3, max_epochs=40)
        digest.update(all_rates(protocol, 77).astype("<f8").tobytes())
    assert digest.hexdigest() == DIGEST


def test_cosine():
    x = np.concatenate([np.linspace(0, 1, 10_001), [0.25, 0.5, 0.75, 1e-300]])
    expected = [math.cos(math.pi * value) for value in x]
    np.testing.assert_allclose(cos_pi(x), expected, rtol=0, atol=1e-15)
    assert cos_pi(np.array([0.0, 0.5, 1.0])).tolist() == [1.0, 0.0, -1.0]
