"""The MLP of the study."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, cast

from torch import Tensor, nn
from torch.nn import functional as F

from dataset.random_stream import RandomStream
from training.initial_weights import draw_linear
from training.module import Dropout, SequenceModel

if TYPE_CHECKING:
    from mlp_experiments.mlp_utils import MLPArchitecture


class MLP(SequenceModel):
    """Flattened one-hot input, ``num_layers`` hidden ReLU layers, one linear output layer."""

    def __init__(self, architecture: MLPArchitecture, dropout: float) -> None:
        super().__init__()
        a = architecture
        self.vocab_size, self.answer = a.vocab_size, (a.label_len, a.label_vocab_size)
        hidden = [a.hidden_size] * a.num_layers
        widths = [a.vocab_size * a.seq_len, *hidden, math.prod(self.answer)]
        self.linears = nn.ModuleList(
            nn.Linear(wide, narrow) for wide, narrow in itertools.pairwise(widths)
        )
        self.dropouts = nn.ModuleList(Dropout(dropout) for _ in hidden)

    def draw_weights(self, stream: RandomStream) -> None:
        """Draw every parameter anew, in the order of ``named_parameters``."""
        for linear in self._linears():
            draw_linear(linear, stream)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (B, L, V) of labels of L tokens for ``tokens`` (B, T) of int64."""
        x = F.one_hot(tokens, self.vocab_size).flatten(1).to(self._linears()[0].weight.dtype)
        for linear, dropout in zip(self.linears[:-1], self.dropouts, strict=True):
            x = dropout(F.relu(linear(x)))  # (B, h)
        return self.linears[-1](x).view(-1, *self.answer)

    def dropout_sites(self) -> list[tuple[Dropout, int]]:
        """Return every dropout layer with its number of elements per batch row."""
        dropouts = cast("list[Dropout]", list(self.dropouts))
        hidden = self._linears()[:-1]
        return [(d, linear.out_features) for d, linear in zip(dropouts, hidden, strict=True)]

    def _linears(self) -> list[nn.Linear]:
        return cast("list[nn.Linear]", list(self.linears))
