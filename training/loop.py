"""The reference training loop: one model, one data set, the protocol step by step.

This file is the ground truth that every faster path is tested against, so it is flat and plain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dataset.encoding import IGNORED
from training.module import SequenceModel, draw_step_masks
from training.protocol import Protocol
from training.schedule import learning_rates
from training.stopping import Stopping
from training.streams import MaskStream

EVALUATION_ROWS = 1024


@dataclass(frozen=True)
class EpochRecord:
    """What one epoch left behind; ``learning_rate`` is that of its last optimiser step."""

    epoch: int
    loss: float
    accuracy: float
    learning_rate: float


@dataclass(frozen=True)
class TrainingResult:
    """The verdict, taken after the weights of the lowest-loss epoch were restored."""

    memorized: bool
    accuracy: float
    loss: float
    epochs: int
    stop_reason: str


@torch.no_grad()
def logits_in_blocks(model: nn.Module, inputs: Tensor) -> Iterator[Tensor]:
    """Yield logits (rows, positions, label vocabulary) of ``inputs``, block by block, dropout off.

    ``inputs`` are (N, S) of int64, or real numbers.
    """
    model.eval()
    for rows in inputs.split(EVALUATION_ROWS):
        yield model(rows)


@torch.no_grad()
def evaluate(model: nn.Module, inputs: Tensor, targets: Tensor) -> tuple[float, float]:
    """Return (mean cross-entropy in nats per token, share of correct tokens), dropout off.

    ``inputs`` are (N, S) of int64, or real numbers, ``targets`` (N, positions) of int64; those that
    are IGNORED count nowhere. NaN logits count as wrong tokens.
    """
    loss, correct = 0.0, 0
    for logits, target in zip(
        logits_in_blocks(model, inputs), targets.split(EVALUATION_ROWS), strict=True
    ):
        loss += F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="sum").item()
        hit = (logits.argmax(-1) == target) & ~logits.isnan().any(-1)
        correct += int(hit.sum())
    count = int((targets != IGNORED).sum())
    return loss / count, correct / count


def train(
    model: SequenceModel,
    inputs: Tensor,
    targets: Tensor,
    protocol: Protocol,
    batch_orders: Iterator[np.ndarray],
    masks: MaskStream | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> TrainingResult:
    """Train ``model`` in place until the protocol stops it; leave it with its best weights.

    ``inputs`` are (N, S) of int64, or real numbers of the protocol's dtype, ``targets`` (N,
    positions) of int64, both on the model's device (see dataset/encoding.py). ``batch_orders``
    yields one permutation of range(N) per epoch. ``masks`` are needed when the protocol has
    dropout. Raises :class:`~training.errors.UserError` for a loss or optimiser that is not there.
    """
    n, batch_size = len(inputs), protocol.batch_size
    loss, optimizer = protocol.find_loss(), protocol.find_optimizer().start(model, protocol)
    weights = torch.ones_like(targets, dtype=getattr(torch, protocol.dtype))  # (N, positions)
    stopping = Stopping(protocol, n)
    best_weights = None
    stop_reason = None
    while stop_reason is None:
        # One epoch: every example once, in a new order, the short last batch included. There are
        # fewer learning rates than batches where max_steps ends the run.
        model.train()
        order = torch.from_numpy(next(batch_orders)).to(inputs.device)
        rates = learning_rates(protocol, n, epoch=stopping.epochs)
        for rows, learning_rate in zip(order.split(batch_size), rates.tolist(), strict=False):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            if protocol.dropout > 0 and masks is not None:
                draw_step_masks(model.dropout_sites(), masks, batch_size, inputs.device)
            logits = model(inputs[rows])  # (rows, positions, label vocabulary)
            target, weight = targets[rows].flatten(), weights[rows].flatten()
            losses = loss.per_token(logits.flatten(0, 1), target, protocol)  # (rows * positions,)
            model.zero_grad()
            ((losses * weight).sum() / (target != IGNORED).sum()).backward()
            if protocol.grad_clip > 0:
                nn.utils.clip_grad_norm_(model.parameters(), protocol.grad_clip)
            optimizer.step()
        if loss.reweight is not None:
            logits = torch.cat(list(logits_in_blocks(model, inputs)))  # (N, positions, ...)
            weights = loss.reweight(weights, logits, targets, protocol)

        # The whole set, in eval mode; then decide.
        if not stopping.is_due():
            continue
        epoch_loss, accuracy = evaluate(model, inputs, targets)
        keep, stop_reason = stopping.after(epoch_loss, accuracy)
        if keep:
            best_weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
        if on_epoch is not None:
            on_epoch(EpochRecord(stopping.epochs, epoch_loss, accuracy, learning_rate))

    if best_weights is not None:
        model.load_state_dict(best_weights)
    final_loss, final_accuracy = evaluate(model, inputs, targets)
    memorized = final_accuracy == 1.0 and stop_reason != "diverged"
    return TrainingResult(memorized, final_accuracy, final_loss, stopping.epochs, stop_reason)
