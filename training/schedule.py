"""The learning rate of every optimiser step, for every engine. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from dataset.portable_math import cos_pi

if TYPE_CHECKING:
    from training.protocol import Protocol


def _linear(rate: float, step: np.ndarray, warmup: int, total: int) -> np.ndarray:
    return rate * (total - step) / (total - warmup)


def _cosine(rate: float, step: np.ndarray, warmup: int, total: int) -> np.ndarray:
    return rate * (1 + cos_pi((step - warmup) / (total - warmup))) / 2


def _constant(rate: float, step: np.ndarray, warmup: int, total: int) -> np.ndarray:
    return np.full_like(step, rate)


# After the warm-up, by the protocol's `schedule`, whose choices these are: (learning_rate, steps
# done, steps of the warm-up, steps in all) -> learning rates.
SCHEDULES: dict[str, Callable[[float, np.ndarray, int, int], np.ndarray]] = {
    "linear": _linear,
    "cosine": _cosine,
    "constant": _constant,
}


def learning_rates(protocol: Protocol, n: int, epoch: int) -> np.ndarray:
    """Return the learning rate of every step of an epoch, (steps,) float64; ``epoch`` starts at 0.

    An epoch has ceil(n / batch_size) steps; that in which ``max_steps`` are done has those up to
    it, and later ones have none. With k steps done, of T = max_epochs * ceil(n / batch_size) in all
    (``max_steps`` if that is less) and W in the warm-up:
    lr * k / W for k < W, then lr * (T - k) / (T - W) (linear), lr * (1 + cos(pi (k - W) / (T - W)))
    / 2 (cosine) or lr (constant). These are the schedules of the Hugging Face Trainer.
    """
    steps = math.ceil(n / protocol.batch_size)
    total, warmup = total_steps(protocol, n), protocol.warmup_epochs * steps
    step = np.arange(epoch * steps, min((epoch + 1) * steps, total), dtype=np.float64)
    if epoch < protocol.warmup_epochs:
        return protocol.learning_rate * step / warmup
    return SCHEDULES[protocol.schedule](protocol.learning_rate, step, warmup, total)


def total_steps(protocol: Protocol, n: int) -> int:
    """Return how many optimiser steps a run on ``n`` examples has, if nothing stops it earlier."""
    steps = protocol.max_epochs * math.ceil(n / protocol.batch_size)
    return min(steps, protocol.max_steps) if protocol.max_steps > 0 else steps


def last_epoch(protocol: Protocol, n: int) -> int:
    """Return how many epochs a run on ``n`` examples has, if nothing stops it earlier."""
    return math.ceil(total_steps(protocol, n) / math.ceil(n / protocol.batch_size))
