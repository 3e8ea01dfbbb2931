"""The decoder-only model: GPT-2 in the small, with a few options.

Radford, Wu, Child, Luan, Amodei and Sutskever, Language Models are Unsupervised Multitask Learners
(2019). The input and the label are one sequence; every position sees itself and what is before it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dataset.random_stream import RandomStream
from training.initial_weights import draw_normal, reset_layer_norm
from training.module import Dropout, SequenceModel

if TYPE_CHECKING:
    from transformer_experiments.decoder_only_utils import DecoderOnlyArchitecture

DEVIATION = 0.02  # of GPT-2's initial weights
ROTARY_BASE = 10_000.0

Tables = tuple[Tensor, Tensor]  # cosine and sine


def rotary_tables(length: int, width: int) -> Tables:
    """Return cosine and sine of p / 10000^(2i/w), both (length, w/2) of float64.

    p is the position, from 0 on, i the pair of features, ``width`` w the width of a head: Su et
    al., RoFormer: Enhanced Transformer with Rotary Position Embedding (2021), equation 15.
    """
    position = torch.arange(length, dtype=torch.float64)
    pair = torch.arange(width // 2, dtype=torch.float64)
    angle = position.unsqueeze(1) * ROTARY_BASE ** (-2 * pair / width)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, tables: Tables) -> Tensor:
    """Return ``x`` (..., S, w) with the features i and i + w/2 turned by the i-th angle, likewise.

    ``tables`` are (S, w/2) each. Such pairs, instead of neighbours, are the usual ones: a matter
    of the order of the features alone.
    """
    cosine, sine = tables
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)


def activate(name: str, x: Tensor) -> Tensor:
    """Return ReLU or GELU of ``x``, any shape.

    GELU as GPT-2 has it: x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), the approximation in
    Hendrycks and Gimpel, Gaussian Error Linear Units (2016).
    """
    return F.relu(x) if name == "relu" else F.gelu(x, approximate="tanh")


class CausalAttention(nn.Module):
    """Scaled dot-product attention to the position itself and those before it."""

    def __init__(self, hidden_size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj = nn.Linear(hidden_size, 3 * hidden_size)  # rows: queries, keys, values
        self.out_proj = nn.Linear(hidden_size, hidden_size)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor, tables: Tables | None) -> Tensor:
        """Return (B, S, d) for ``x`` (B, S, d); ``mask`` (S, S) is added to the scores.

        With ``tables`` queries and keys are rotated by their positions.
        """
        batch, length, hidden_size = x.shape
        parts = self.in_proj(x).view(batch, length, 3, self.num_heads, -1)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # (B, H, S, d/H)
        if tables is not None:
            query, key = rotate(query, tables), rotate(key, tables)
        scores = query @ key.transpose(-2, -1) / math.sqrt(hidden_size // self.num_heads)
        weights = self.dropout((scores + mask).softmax(dim=-1))  # (B, H, S, S)
        return self.out_proj((weights @ value).transpose(1, 2).reshape(x.shape))


class Block(nn.Module):
    """Attention and a feed-forward block, each added to what it was given.

    LayerNorm is before each of the two (pre) or after each sum (post).
    """

    def __init__(self, architecture: DecoderOnlyArchitecture, dropout: float) -> None:
        super().__init__()
        a = architecture
        self.is_pre_norm, self.activation = a.norm == "pre", a.activation
        self.norm1 = nn.LayerNorm(a.hidden_size)
        self.attention = CausalAttention(a.hidden_size, a.num_heads, dropout)
        self.norm2 = nn.LayerNorm(a.hidden_size)
        self.linear1 = nn.Linear(a.hidden_size, a.d_ff)
        self.linear2 = nn.Linear(a.d_ff, a.hidden_size)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)

    def draw_weights(self, stream: RandomStream, residual_deviation: float) -> None:
        """Draw every parameter anew, in the order of ``named_parameters``.

        ``residual_deviation`` is that of the matrices whose products are added to the residual.
        """
        reset_layer_norm(self.norm1)
        for linear, deviation in (
            (self.attention.in_proj, DEVIATION),
            (self.attention.out_proj, residual_deviation),
            (self.linear1, DEVIATION),
            (self.linear2, residual_deviation),
        ):
            draw_normal(linear.weight, stream, deviation)
            nn.init.zeros_(linear.bias)
        reset_layer_norm(self.norm2)

    def forward(self, x: Tensor, mask: Tensor, tables: Tables | None) -> Tensor:
        """Return (B, S, d) for ``x`` (B, S, d); see :class:`CausalAttention`."""
        if self.is_pre_norm:
            x = x + self.dropout1(self.attention(self.norm1(x), mask, tables))
            return x + self.dropout2(self._feed_forward(self.norm2(x)))
        x = self.norm1(x + self.dropout1(self.attention(x, mask, tables)))
        return self.norm2(x + self.dropout2(self._feed_forward(x)))

    def _feed_forward(self, x: Tensor) -> Tensor:
        return self.linear2(activate(self.activation, self.linear1(x)))


class DecoderOnly(SequenceModel):
    """Logits (B, S, V) of the next token for tokens (B, S): the input, then its label but the last.

    By default the head is the token embedding. A post-norm model has no LayerNorm at its end,
    where its last layer has one already.
    """

    causal_mask: Tensor
    cosine: Tensor
    sine: Tensor

    def __init__(self, architecture: DecoderOnlyArchitecture, dropout: float = 0.1) -> None:
        super().__init__()
        a = architecture
        d, length = a.hidden_size, a.num_positions
        self.token_embedding = nn.Embedding(a.vocab_size, d)
        self.position_embedding = None if a.position == "rope" else nn.Embedding(length, d)
        self.layers = nn.ModuleList(Block(a, dropout) for _ in range(a.num_layers))
        self.norm = nn.LayerNorm(d) if a.norm == "pre" else None
        self.head = nn.Linear(d, a.vocab_size, bias=False) if a.head == "untied" else None
        self.dropout = Dropout(dropout)
        mask = torch.full((length, length), float("-inf")).triu(1)
        self.register_buffer("causal_mask", mask, persistent=False)
        if a.position == "rope":
            # Rounded once, from float64: the functions of different machines agree in that.
            cosine, sine = rotary_tables(length, d // a.num_heads)
            self.register_buffer("cosine", cosine.float(), persistent=False)
            self.register_buffer("sine", sine.float(), persistent=False)

    def draw_weights(self, stream: RandomStream) -> None:
        """Draw every parameter anew, in the order of ``named_parameters``, as GPT-2's begin.

        Embeddings and matrices are normal with deviation 0.02; those whose products are added to
        the residual, two per layer, are divided by the root of their number.
        """
        draw_normal(self.token_embedding.weight, stream, DEVIATION)
        if self.position_embedding is not None:
            draw_normal(self.position_embedding.weight, stream, DEVIATION)
        blocks = self._blocks()
        for block in blocks:
            block.draw_weights(stream, DEVIATION / math.sqrt(2 * len(blocks)))
        if self.norm is not None:
            reset_layer_norm(self.norm)
        if self.head is not None:
            draw_normal(self.head.weight, stream, DEVIATION)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (B, S, V) for ``tokens`` (B, S) of int64."""
        x = self.token_embedding(tokens)  # (B, S, d)
        tables = None
        if self.position_embedding is None:
            tables = self.cosine, self.sine
        else:
            x = x + self.position_embedding.weight
        x = self.dropout(x)
        for layer in self.layers:
            x = layer(x, self.causal_mask, tables)
        if self.norm is not None:
            x = self.norm(x)
        head = self.token_embedding if self.head is None else self.head
        return F.linear(x, head.weight)

    def dropout_sites(self) -> list[tuple[Dropout, int]]:
        """Return every dropout layer with its number of elements per batch row."""
        length = len(self.causal_mask)
        rows = length * self.token_embedding.embedding_dim
        sites = [(self.dropout, rows)]
        for block in self._blocks():
            scores = block.attention.num_heads * length * length
            sites += [
                (block.attention.dropout, scores),
                (block.dropout1, rows),
                (block.dropout2, rows),
            ]
        return sites

    def _blocks(self) -> list[Block]:
        return cast("list[Block]", list(self.layers))
