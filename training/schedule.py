"""The learning rate of every optimiser step, for every engine. Imports no torch."""

from __future__ import annotations

import math

import numpy as np

from training.protocol import Protocol


def total_steps(protocol: Protocol, n: int) -> int:
    """Return the horizon of the decay for ``n`` sequences, in optimiser steps."""
    return protocol.max_epochs * math.ceil(n / protocol.batch_size)


def learning_rates(protocol: Protocol, n: int, epoch: int) -> np.ndarray:
    """Return the learning rate of every step of an epoch, (steps,) float64; ``epoch`` starts at 0.

    It decays linearly, to 0 one step after the last: at step k of T it is lr * (T - k) / T.
    """
    steps, total = math.ceil(n / protocol.batch_size), total_steps(protocol, n)
    step = np.arange(epoch * steps, (epoch + 1) * steps, dtype=np.float64)
    return protocol.learning_rate * (total - step) / total
