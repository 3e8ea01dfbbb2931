"""What modules are made of and offer: dropout whose masks are the probe's own, and a base class."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from dataset.random_stream import RandomStream
from training.streams import MaskStream


class Dropout(nn.Module):
    """``nn.Dropout``, except that :func:`draw_step_masks` can hand it the masks of a step."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.step_mask: Tensor | None = None  # (batch_size, elements per row), 0 or the scale

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (rows, ...), in training mode with elements dropped and the rest scaled."""
        if not self.training or self.rate == 0.0:
            return x
        if self.step_mask is None:
            return nn.functional.dropout(x, self.rate)
        return x * self.step_mask[: x.shape[0]].view(x.shape)


def draw_step_masks(
    sites: list[tuple[Dropout, int]], masks: MaskStream, batch_size: int, device: torch.device
) -> None:
    """Draw one optimiser step's masks for ``sites``, pairs of (layer, elements per batch row).

    The draw covers ``batch_size`` rows even when the step has fewer, so that a short last batch
    takes as much of the stream as a full one.
    """
    draws = masks.draw(batch_size * sum(per_row for _, per_row in sites))
    scaled = np.where(draws >= masks.dropped, np.float32(masks.scale), np.float32(0))
    offset = 0
    for layer, per_row in sites:
        size = batch_size * per_row
        layer.step_mask = (
            torch.from_numpy(scaled[offset : offset + size]).to(device).view(batch_size, per_row)
        )
        offset += size


class SequenceModel(nn.Module):
    """A module whose forward maps inputs (B, S) to logits (B, positions, label vocabulary).

    Inputs are tokens, int64, or for a task with vectors real numbers of the protocol's dtype.
    Inputs and positions are as the spec's encoding makes them (dataset/encoding.py).
    """

    def draw_weights(self, stream: RandomStream) -> None:
        """Draw every parameter anew from ``stream``, in the order of ``named_parameters``.

        What is drawn may depend on nothing else: neither torch's kernels nor its generator.
        """
        raise NotImplementedError

    def dropout_sites(self) -> list[tuple[Dropout, int]]:
        """Return every dropout layer with its number of elements per batch row."""
        return []
