"""What the module of a model offers besides ``forward``."""

from __future__ import annotations

from torch import nn

from dataset.random_stream import RandomStream
from training.dropout import Dropout


class SequenceModel(nn.Module):
    """A module whose forward maps tokens (B, S) of int64 to logits (B, S, V)."""

    def draw_weights(self, stream: RandomStream) -> None:
        """Draw every parameter anew from ``stream``, in the order of ``named_parameters``.

        What is drawn may depend on nothing else: neither torch's kernels nor its generator.
        """
        raise NotImplementedError

    def dropout_sites(self) -> list[tuple[Dropout, int]]:
        """Return every dropout layer with its number of elements per batch row."""
        return []
