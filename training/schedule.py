"""The learning rate of every optimiser step, for every engine. Imports no torch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from training.portable_math import cos_pi
from training.protocol import Protocol


def _linear(rate: float, step: np.ndarray, warmup: int, total: int) -> np.ndarray:
    return rate * (total - step) / (total - warmup)


def _cosine(rate: float, step: np.ndarray, warmup: int, total: int) -> np.ndarray:
    return rate * (1 + cos_pi((step - warmup) / (total - warmup))) / 2


def _constant(rate: float, step: np.ndarray, warmup: int, total: int) -> np.ndarray:
    return np.full_like(step, rate)


# After the warm-up, by the protocol's `schedule`: (learning_rate, steps done, steps of the warm-up,
# steps in all) -> learning rates.
SCHEDULES: dict[str, Callable[[float, np.ndarray, int, int], np.ndarray]] = {
    "linear": _linear,
    "cosine": _cosine,
    "constant": _constant,
}


def learning_rates(protocol: Protocol, n: int, epoch: int) -> np.ndarray:
    """Return the learning rate of every step of an epoch, (steps,) float64; ``epoch`` starts at 0.

    With k steps done, of T = max_epochs * ceil(n / batch_size) in all and W in the warm-up:
    lr * k / W for k < W, then lr * (T - k) / (T - W) (linear), lr * (1 + cos(pi (k - W) / (T - W)))
    / 2 (cosine) or lr (constant). These are the schedules of the Hugging Face Trainer.
    """
    steps = math.ceil(n / protocol.batch_size)
    total, warmup = protocol.max_epochs * steps, protocol.warmup_epochs * steps
    step = np.arange(epoch * steps, (epoch + 1) * steps, dtype=np.float64)
    if epoch < protocol.warmup_epochs:
        return protocol.learning_rate * step / warmup
    return SCHEDULES[protocol.schedule](protocol.learning_rate, step, warmup, total)
