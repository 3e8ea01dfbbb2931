"""The one policy of every engine: what to keep, when to stop, the verdict, the history, the time.

An engine trains a stack of models, which know nothing of each other; it has only to take epochs, to
evaluate, and to keep and give back weights (:class:`Stack`). The reference loop (loop.py) says the
same once more, flat and plain: it is what this is tested against.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol as Interface

import numpy as np
from torch import Tensor

from training.loop import EpochRecord
from training.probe import Outcome
from training.start import ProbeStart
from training.stopping import Stopping

Epoch = tuple[np.ndarray, np.ndarray]  # order (rows,), learning rates (steps,)


class Stack(Interface):
    """Models in training side by side, each known by its index."""

    def train_epoch(self, epochs: Sequence[Epoch | None]) -> None:
        """Train every model for its epoch; one without stands still."""

    def evaluate(self) -> list[tuple[float, float]]:
        """Return every model's (loss in nats per token, share of correct tokens), dropout off."""

    def snapshot(self, indices: Sequence[int]) -> None:
        """Keep these models' weights, instead of what was kept of them before."""

    def restore(self) -> None:
        """Give every model back the weights that were kept of it last."""

    def state_dict(self, index: int) -> dict[str, Tensor]:
        """Return a copy of one model's weights under its module's names, on the CPU."""


@dataclass
class _Run:
    """Where one model of the stack is."""

    start: ProbeStart
    epochs: Iterator[Epoch]
    stopping: Stopping
    stop_reason: str | None = None
    has_weights: bool = False
    seconds: float = 0.0


def train_stack(
    stack: Stack,
    starts: Sequence[ProbeStart],
    on_epoch: Callable[[int, EpochRecord], None] = lambda index, record: None,
) -> list[Outcome]:
    """Train all to their ends; leave each with its lowest-loss weights; return the outcomes.

    ``on_epoch(index, EpochRecord)`` is called after every evaluated epoch of every model.
    ``seconds`` is a model's equal share of the rounds it took part in; a round is one epoch of
    every model.
    """
    runs = [_Run(s, s.epochs(), Stopping(s.probe.protocol, s.probe.n)) for s in starts]
    while training := [i for i, run in enumerate(runs) if run.stop_reason is None]:
        begin = time.perf_counter()
        epochs = {i: next(runs[i].epochs) for i in training}
        stack.train_epoch([epochs.get(i) for i in range(len(runs))])
        due = [i for i in training if runs[i].stopping.is_due()]
        scores, keep = stack.evaluate() if due else [], []
        for i in due:
            run, (loss, accuracy), (_, rates) = runs[i], scores[i], epochs[i]
            is_kept, run.stop_reason = run.stopping.after(loss, accuracy)
            # The first even if it diverged: there is nothing else to restore.
            if is_kept or not run.has_weights:
                keep.append(i)
                run.has_weights = True
            on_epoch(i, EpochRecord(run.stopping.epochs, loss, accuracy, float(rates[-1])))
        if keep:
            stack.snapshot(keep)
        for i in training:
            runs[i].seconds += (time.perf_counter() - begin) / len(training)
    stack.restore()
    return [_outcome(run, *score) for run, score in zip(runs, stack.evaluate(), strict=True)]


def _outcome(run: _Run, loss: float, accuracy: float) -> Outcome:
    assert run.stop_reason is not None
    return Outcome(
        memorized=accuracy == 1.0 and run.stop_reason != "diverged",
        accuracy=accuracy,
        loss=loss,
        epochs=run.stopping.epochs,
        stop_reason=run.stop_reason,
        seconds=run.seconds,
    )
