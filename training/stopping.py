"""When training stops, and which epoch's weights are kept: the rules after every epoch."""

from __future__ import annotations

import math

from training.protocol import Protocol
from training.schedule import last_epoch, total_steps

# The last is of engines/linear_program.py, where no training stops.
STOP_REASONS = ("perfect", "plateau", "max_epochs", "max_steps", "diverged", "inseparable")


class Stopping:
    """The state of the stopping rules of one training run on ``n`` examples.

    After every epoch call :meth:`is_due`, and where it says so evaluate and call :meth:`after`.
    """

    def __init__(self, protocol: Protocol, n: int) -> None:
        self.epochs = 0
        self._protocol = protocol
        self._last_epoch = last_epoch(protocol, n)
        are_steps_fewer = 0 < protocol.max_steps == total_steps(protocol, n)
        is_whole = protocol.max_steps == protocol.max_epochs * math.ceil(n / protocol.batch_size)
        self._end = "max_steps" if are_steps_fewer and not is_whole else "max_epochs"
        self._best = math.inf  # lowest loss of all earlier epochs; moves on any decrease
        self._without_improvement = 0

    def is_due(self) -> bool:
        """Count one epoch; return whether it is to be evaluated."""
        self.epochs += 1
        interval = self._protocol.evaluation_interval
        return self.epochs % interval == 0 or self.epochs >= self._last_epoch

    def after(self, loss: float, accuracy: float) -> tuple[bool, str | None]:
        """Return (whether to keep this epoch's weights, stop reason or None).

        They are kept for the lowest loss of all evaluations so far, and with the verdict
        ``first_perfect`` when every token is right. An evaluation improves if its loss is more than
        ``min_delta`` below the lowest earlier loss; the first always does. A loss that is NaN or
        infinite stops the run as "diverged".
        """
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
            return is_lowest or self._protocol.verdict == "first_perfect", "perfect"
        if 0 < self._protocol.patience <= self._without_improvement:
            return is_lowest, "plateau"
        if self.epochs >= self._last_epoch:
            return is_lowest, self._end
        return is_lowest, None
