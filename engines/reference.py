"""Plain torch modules as a stack: the reference arithmetic under the session's policy.

The same steps as the flat loop of training/loop.py, in the same order, so with the same bits; the
loop is what this and the session are tested against.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dataset.encoding import IGNORED
from training.loop import evaluate, logits_in_blocks
from training.module import draw_step_masks
from training.session import Epoch
from training.start import ProbeStart


class ReferenceStack:
    """A :class:`training.session.Stack` of modules, one after the other, on any device.

    Their probes are of one protocol.
    """

    def __init__(self, starts: Sequence[ProbeStart], device: str = "cpu") -> None:
        self._starts = starts
        self._models = [start.module.to(device) for start in starts]
        self._data = [start.tensors(device) for start in starts]
        self._kept: dict[int, dict[str, Tensor]] = {}
        protocol = starts[0].probe.protocol
        self._loss = protocol.find_loss()
        optimizer = protocol.find_optimizer()
        self._optimizers = [optimizer.start(model, protocol) for model in self._models]
        dtype = getattr(torch, protocol.dtype)
        self._weights = [torch.ones_like(targets, dtype=dtype) for _, targets in self._data]

    def train_epoch(self, epochs: Sequence[Epoch | None]) -> None:
        """See :class:`training.session.Stack`."""
        for index, epoch in enumerate(epochs):
            if epoch is not None:
                self._train_epoch(index, epoch)

    def _train_epoch(self, index: int, epoch: Epoch) -> None:
        model, optimizer, start = self._models[index], self._optimizers[index], self._starts[index]
        # (N, S); targets and weights (N, positions)
        (inputs, targets), weights = self._data[index], self._weights[index]
        protocol = start.probe.protocol
        order, rates = epoch
        batches = torch.from_numpy(order).to(inputs.device).split(protocol.batch_size)
        model.train()
        for rows, learning_rate in zip(batches, rates.tolist(), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            if protocol.dropout > 0:
                sites = model.dropout_sites()
                draw_step_masks(sites, start.masks, protocol.batch_size, inputs.device)
            logits = model(inputs[rows])  # (rows, positions, label vocabulary)
            target, weight = targets[rows].flatten(), weights[rows].flatten()
            losses = self._loss.per_token(logits.flatten(0, 1), target, protocol)  # per target
            model.zero_grad()
            ((losses * weight).sum() / (target != IGNORED).sum()).backward()
            if protocol.grad_clip > 0:
                nn.utils.clip_grad_norm_(model.parameters(), protocol.grad_clip)
            optimizer.step()
        if self._loss.reweight is not None:
            logits = torch.cat(list(logits_in_blocks(model, inputs)))  # (N, positions, ...)
            self._weights[index] = self._loss.reweight(weights, logits, targets, protocol)

    def evaluate(self) -> list[tuple[float, float]]:
        """See :class:`training.session.Stack`."""
        pairs = zip(self._models, self._data, strict=True)
        return [evaluate(model, *data) for model, data in pairs]

    def snapshot(self, indices: Sequence[int]) -> None:
        """See :class:`training.session.Stack`."""
        for i in indices:
            weights = self._models[i].state_dict()
            self._kept[i] = {name: value.detach().clone() for name, value in weights.items()}

    def restore(self) -> None:
        """See :class:`training.session.Stack`."""
        for i, weights in self._kept.items():
            self._models[i].load_state_dict(weights)

    def state_dict(self, index: int) -> dict[str, Tensor]:
        """See :class:`training.session.Stack`."""
        weights = self._models[index].state_dict()
        return {name: value.detach().cpu().clone() for name, value in weights.items()}
