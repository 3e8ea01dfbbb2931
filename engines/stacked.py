"""Several probes of one architecture and protocol trained together, on any torch device.

The path for CUDA, where one small model leaves the device idle, and the fallback for small MLPs on
a CPU without the compiled engine. Every tensor has a leading model dimension M; no operation mixes
models. The host looks at the results once per epoch. M counts the lanes of :class:`StackedModels`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dataset.encoding import IGNORED
from engines.device_masks import DeviceMasks, HostMasks
from engines.forward import Keep, forward_of
from training.module import SequenceModel
from training.optimizers import parameter_groups
from training.protocol import Protocol
from training.session import Epoch
from training.start import ProbeStart

EVALUATION_ROWS = 1024  # at most, of every model at once
ROW_BLOCK = 32
FIXED_EVALUATION_ROWS = 256  # exactly, where the number of lanes is fixed
ALIGNMENT = 32  # numbers: every lane's parameters start at a multiple of 128 bytes or more
LARGE_BATCH = 256  # rows; committed probes of this engine have no larger ones


def stack_rows(protocol: Protocol, n: int) -> int:
    """Return how many rows a step computes of every model that trains on ``n`` examples.

    A batch that is larger than LARGE_BATCH and than N has N rows, rounded up to a power of two
    from there on. With dropout it has all its rows, because their masks are drawn. The number
    decides the bits, so only probes of one share a stack.
    """
    if protocol.dropout > 0:
        return protocol.batch_size
    return min(protocol.batch_size, 1 << (max(n, LARGE_BATCH) - 1).bit_length())


class StackedModels:
    """Models that share architecture, protocol and rows; a :class:`training.session.Stack`.

    A lane holds one model. By default there are as many lanes as models. With a fixed number those
    left over are idle: they have weights, but no data, and never take a step. Then the shapes of
    all products depend on architecture, protocol and ``lanes`` alone: a GPU's libraries choose by
    the shapes in which order they add, and by a row's address, so lanes are aligned alike. Raises
    :class:`~training.errors.UserError` for a module that vmap cannot run.
    """

    def __init__(
        self,
        starts: Sequence[ProbeStart],
        device: str = "cpu",
        host_masks: bool = True,
        lanes: int | None = None,
    ) -> None:
        self._models, self._lanes = len(starts), lanes or len(starts)
        assert self._models <= self._lanes
        is_fixed = lanes is not None
        self._evaluation_rows = FIXED_EVALUATION_ROWS if is_fixed else EVALUATION_ROWS
        self._row_block = FIXED_EVALUATION_ROWS if is_fixed else ROW_BLOCK
        probe = starts[0].probe
        self.protocol, self.architecture = probe.protocol, probe.architecture
        assert all(
            (s.probe.architecture, s.probe.protocol) == (self.architecture, self.protocol)
            for s in starts
        )
        (self.batch,) = {stack_rows(self.protocol, s.probe.n) for s in starts}
        self._loss, update = self.protocol.find_loss(), self.protocol.find_optimizer().stacked
        assert update is not None and self._loss.reweight is None  # or the engine knows it not
        self._update = update
        self.device = torch.device(device)
        torch.set_float32_matmul_precision("highest")  # no TF32, no bfloat16
        self._forward = forward_of(starts, self.device)
        self._steps_done = torch.zeros(self._lanes, dtype=torch.int64, device=self.device)
        self._step_in_round = torch.zeros((), dtype=torch.int64, device=self.device)
        self._init_data(starts)
        self._init_weights([start.module for start in starts])
        self._sites = [per_row for _, per_row in starts[0].module.dropout_sites()]
        self._masks = None
        if self.protocol.dropout > 0 and self._sites:
            kind = HostMasks if host_masks else DeviceMasks
            count = self.batch * sum(self._sites)
            streams = [start.masks for start in starts]
            self._masks = kind(streams, self._lanes, count, self.device)
        # A graph replays the device's work of a step without Python; masks must be drawn on it.
        self._use_graph = self.device.type == "cuda" and not (host_masks and self._masks)
        self._graph: torch.cuda.CUDAGraph | None = None

    def _init_data(self, starts: Sequence[ProbeStart]) -> None:
        # Whole blocks of rows: a product of very few rows rounds unlike one of many.
        n = [len(start.inputs) for start in starts]
        padded = math.ceil(max(n) / self._row_block) * self._row_block
        first = starts[0]
        inputs = np.zeros((self._lanes, padded, first.inputs.shape[1]), first.inputs.dtype)
        targets = np.full((self._lanes, padded, first.targets.shape[1]), IGNORED)
        for row, start in enumerate(starts):
            inputs[row, : n[row]], targets[row, : n[row]] = start.inputs, start.targets
        self._inputs = torch.from_numpy(inputs).to(self.device)  # (M, N, S), tokens or real numbers
        self._targets = torch.from_numpy(targets).to(self.device)  # (M, N, positions)
        self._index = torch.arange(self._lanes, device=self.device).unsqueeze(1)
        # One epoch's order, padded to whole batches of every model; -1 is padding.
        steps = (self._lanes, math.ceil(max(n) / self.batch))
        self._order = torch.full((*steps, self.batch), -1, dtype=torch.int64, device=self.device)
        self._rates = torch.zeros(steps, dtype=torch.float64, device=self.device)

    def _init_weights(self, modules: list[SequenceModel]) -> None:
        first = modules[0]
        self._names = [name for name, _ in first.named_parameters()]
        self._shapes = [p.shape for p in first.parameters()]
        parameters = sum(shape.numel() for shape in self._shapes)
        padding = -parameters % ALIGNMENT  # zeros, which stay zero
        self._sizes = [*(shape.numel() for shape in self._shapes), padding]
        flat = [torch.cat([p.detach().flatten() for p in m.parameters()]) for m in modules]
        flat = [F.pad(row, (0, padding)) for row in flat]
        flat += flat[:1] * (self._lanes - len(flat))  # idle lanes: any finite weights
        self._flat = torch.stack(flat).to(self.device)  # (M, P), padding included
        self._best = self._flat.clone()
        self._moments = self._flat.new_zeros(self._update.moments, *self._flat.shape)
        decays = {
            id(p): group["weight_decay"]
            for group in parameter_groups(first, self.protocol.weight_decay)
            for p in group["params"]
        }
        decay = [
            p.detach().new_full((p.numel(),), decays.get(id(p), 0)) for p in first.parameters()
        ]
        self._fixed = {name for name, p in first.named_parameters() if not p.requires_grad}
        self._decay = F.pad(torch.cat(decay), (0, padding)).to(self.device)  # (P,)

    def _parameters(self, flat: Tensor) -> dict[str, Tensor]:
        *parts, _ = flat.split(self._sizes, dim=1)
        return {
            name: part.view(len(flat), *shape)
            for name, part, shape in zip(self._names, parts, self._shapes, strict=True)
        }

    def _gradient(self, rows: Tensor, valid: Tensor, keep: Keep) -> Tensor:
        """Return the gradients (M, P) of the models' mean losses over the ``valid`` of ``rows``."""
        leaves = {
            name: values.detach().requires_grad_(name not in self._fixed)
            for name, values in self._parameters(self._flat).items()
        }
        logits = self._forward(leaves, self._inputs[self._index, rows], keep)
        target = self._targets[self._index, rows]  # (M, B, positions)
        losses = self._loss.per_token(logits.flatten(0, 2), target.flatten(), self.protocol)
        counts = valid.unsqueeze(-1) & (target != IGNORED)  # padded rows do not
        weights = counts.to(losses.dtype) / counts.sum((1, 2), keepdim=True).clamp(min=1)
        loss = (losses.view(target.shape) * weights).sum()
        trained = torch.autograd.grad(
            loss, [leaf for leaf in leaves.values() if leaf.requires_grad]
        )
        own = iter(trained)
        gradients = [
            next(own) if leaf.requires_grad else torch.zeros_like(leaf) for leaf in leaves.values()
        ]
        padding = gradients[0].new_zeros(self._lanes, self._sizes[-1])
        return torch.cat([*(g.flatten(1) for g in gradients), padding], dim=1)

    def _step(self, active: list[bool]) -> None:
        """One optimiser step of every model that has one left in this round."""
        protocol = self.protocol
        batch = self._order.index_select(1, self._step_in_round.view(1)).squeeze(1)  # (M, B)
        valid = batch >= 0
        rows = batch.clamp(min=0)
        keep: Keep = []
        if self._masks is not None:
            masks = self._masks.draw(active, self._steps_done)
            keep = masks.split([self.batch * per_row for per_row in self._sites], dim=1)
        gradient = self._gradient(rows, valid, keep)
        if protocol.grad_clip > 0:
            norm = gradient.norm(dim=1, keepdim=True)
            gradient = gradient * (protocol.grad_clip / (norm + 1e-6)).clamp(max=1.0)
        rate = self._rates.index_select(1, self._step_in_round.view(1)).squeeze(1)  # (M,)
        done = self._steps_done.double()
        flat, moments = self._update.step(
            self._flat, gradient, self._moments.unbind(), rate, done, self._decay, protocol
        )
        stepping = valid.any(1)  # (M,); the others stay as they are
        for old, new in zip((self._flat, *self._moments), (flat, *moments), strict=True):
            old.copy_(torch.where(stepping.unsqueeze(1), new, old))
        self._steps_done += stepping
        self._step_in_round += 1

    @torch.no_grad()
    def evaluate(self) -> list[tuple[float, float]]:
        """See :class:`training.session.Stack`."""
        parameters = self._parameters(self._flat)
        loss = torch.zeros(len(self._flat), dtype=torch.float64, device=self.device)
        correct = torch.zeros(len(self._flat), dtype=torch.int64, device=self.device)
        for start in range(0, self._targets.shape[1], self._evaluation_rows):
            at = slice(start, start + self._evaluation_rows)
            target = self._targets[:, at]
            counted = target != IGNORED
            logits = self._forward(parameters, self._inputs[:, at], None)
            losses = F.cross_entropy(logits.flatten(0, 2), target.flatten(), reduction="none")
            loss += losses.view(target.shape).double().sum((1, 2))
            hit = (logits.argmax(-1) == target) & ~logits.isnan().any(-1) & counted
            correct += hit.sum((1, 2))
        tokens = (self._targets != IGNORED).sum((1, 2)).clamp(min=1)  # an idle lane has none
        accuracy = correct / tokens.double()
        scores = zip((loss / tokens).tolist(), accuracy.tolist(), strict=True)
        return list(scores)[: self._models]

    def train_epoch(self, epochs: Sequence[Epoch | None]) -> None:
        """See :class:`training.session.Stack`."""
        order = np.full(tuple(self._order.shape), -1, np.int64)
        rates = np.zeros(tuple(self._rates.shape))
        steps = [0] * self._lanes
        for row, epoch in enumerate(epochs):
            if epoch is not None:
                own_order, own_rates = epoch
                order[row].reshape(-1)[: len(own_order)] = own_order
                rates[row, : len(own_rates)] = own_rates
                steps[row] = len(own_rates)
        self._order.copy_(torch.from_numpy(order))
        self._rates.copy_(torch.from_numpy(rates))
        self._step_in_round.zero_()
        for step in range(max(steps)):
            if self._use_graph:
                self._replay()
            else:
                self._step([step < own_steps for own_steps in steps])

    def _replay(self) -> None:
        """Run one step as a captured CUDA graph; capture it at the first call."""
        if self._graph is None:
            state = (
                self._flat,
                self._moments,
                self._steps_done,
                self._step_in_round,
            )
            saved = [tensor.clone() for tensor in state]
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):  # libraries allocate their workspaces before the capture
                    self._step([])
                    self._step_in_round.zero_()  # a round may have fewer steps than these
            torch.cuda.current_stream().wait_stream(stream)
            graph = self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._step([])
            for tensor, before in zip(state, saved, strict=True):
                tensor.copy_(before)
        self._graph.replay()

    def snapshot(self, indices: Sequence[int]) -> None:
        """See :class:`training.session.Stack`."""
        self._best[list(indices)] = self._flat[list(indices)]

    def restore(self) -> None:
        """See :class:`training.session.Stack`."""
        self._flat.copy_(self._best)

    def state_dict(self, index: int) -> dict[str, Tensor]:
        """Return a copy of one model's weights under its module's names."""
        return {k: v[index].cpu() for k, v in self._parameters(self._flat).items()}
