"""When training stops, and which epoch's weights are kept: the rules after every epoch."""

from __future__ import annotations

import math

from training.protocol import Protocol

STOP_REASONS = ("perfect", "plateau", "max_epochs", "diverged")


class Stopping:
    """The state of the stopping rules of one training run."""

    def __init__(self, protocol: Protocol) -> None:
        self.epochs = 0
        self._protocol = protocol
        self._best = math.inf  # lowest loss of all earlier epochs; moves on any decrease
        self._without_improvement = 0

    def after_epoch(self, loss: float, accuracy: float) -> tuple[bool, str | None]:
        """Return (whether this epoch has the lowest loss so far, stop reason or None).

        An epoch improves if its loss is more than ``min_delta`` below the lowest earlier loss;
        the first always does. A loss that is NaN or infinite stops the run as "diverged".
        """
        self.epochs += 1
        if not math.isfinite(loss):
            return False, "diverged"
        if self._best - loss > self._protocol.min_delta:
            self._without_improvement = 0
        else:
            self._without_improvement += 1
        is_lowest = loss < self._best
        if is_lowest:
            self._best = loss
        if accuracy == 1.0:
            return is_lowest, "perfect"
        if 0 < self._protocol.patience <= self._without_improvement:
            return is_lowest, "plateau"
        if self.epochs >= self._protocol.max_epochs:
            return is_lowest, "max_epochs"
        return is_lowest, None
