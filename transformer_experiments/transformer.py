"""The transformer of the study."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dataset.random_stream import RandomStream
from training.initial_weights import (
    draw_linear,
    draw_normal,
    draw_xavier_uniform,
    reset_layer_norm,
)
from training.module import Dropout, SequenceModel

if TYPE_CHECKING:
    from transformer_experiments.transformer_utils import TransformerArchitecture


class MultiHeadAttention(nn.Module):
    """Scaled dot-product attention; parameters named and initialised as torch's own."""

    def __init__(self, hidden_size: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * hidden_size, hidden_size))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * hidden_size))
        self.out_proj = nn.Linear(hidden_size, hidden_size)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)
        self.dropout = Dropout(dropout)

    def draw_weights(self, stream: RandomStream) -> None:
        """Draw every parameter anew, in the order of ``named_parameters``."""
        draw_xavier_uniform(self.in_proj_weight, stream)
        nn.init.zeros_(self.in_proj_bias)
        draw_linear(self.out_proj, stream, zero_bias=True)

    def projections(self) -> list[tuple[Tensor, Tensor]]:
        """Return matrix and bias of query, key and value: views into the stacked parameters."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        return list(zip(weights, biases, strict=True))

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None) -> Tensor:
        """Return (B, T, d) for queries from ``x``, keys and values from ``memory``, both (B, T, d).

        ``mask`` (T, T) is added to the scores.
        """
        batch, seq_len, hidden_size = x.shape
        w_q, w_k, w_v = self.in_proj_weight.chunk(3)
        b_q, b_k, b_v = self.in_proj_bias.chunk(3)

        def heads(source: Tensor, weight: Tensor, bias: Tensor) -> Tensor:  # (B, H, T, d/H)
            projected = F.linear(source, weight, bias)
            return projected.view(batch, seq_len, self.num_heads, -1).transpose(1, 2)

        query, key, value = heads(x, w_q, b_q), heads(memory, w_k, b_k), heads(memory, w_v, b_v)
        scores = query @ key.transpose(-2, -1) / math.sqrt(hidden_size // self.num_heads)
        if mask is not None:
            scores = scores + mask
        weights = self.dropout(scores.softmax(dim=-1))  # (B, H, T, T)
        mixed = (weights @ value).transpose(1, 2).reshape(batch, seq_len, hidden_size)
        return self.out_proj(mixed)


class DecoderLayer(nn.Module):
    """One post-norm decoder layer with ReLU, the default ``nn.TransformerDecoderLayer``."""

    def __init__(self, hidden_size: int, d_ff: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.self_attn = MultiHeadAttention(hidden_size, num_heads, dropout)
        self.multihead_attn = MultiHeadAttention(hidden_size, num_heads, dropout)
        self.linear1 = nn.Linear(hidden_size, d_ff)
        self.linear2 = nn.Linear(d_ff, hidden_size)
        self.norm1 = nn.LayerNorm(hidden_size)
        self.norm2 = nn.LayerNorm(hidden_size)
        self.norm3 = nn.LayerNorm(hidden_size)
        self.dropout = Dropout(dropout)  # inside the feed-forward block
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.dropout3 = Dropout(dropout)

    def draw_weights(self, stream: RandomStream) -> None:
        """Draw every parameter anew, in the order of ``named_parameters``."""
        self.self_attn.draw_weights(stream)
        self.multihead_attn.draw_weights(stream)
        draw_linear(self.linear1, stream)
        draw_linear(self.linear2, stream)
        for norm in (self.norm1, self.norm2, self.norm3):
            reset_layer_norm(norm)

    def forward(self, x: Tensor, memory: Tensor, causal_mask: Tensor) -> Tensor:
        """Return (B, T, d); self-attention is masked, cross-attention sees all of ``memory``."""
        x = self.norm1(x + self.dropout1(self.self_attn(x, x, causal_mask)))
        x = self.norm2(x + self.dropout2(self.multihead_attn(x, memory, None)))
        hidden = self.dropout(F.relu(self.linear1(x)))  # (B, T, d_ff)
        return self.norm3(x + self.dropout3(self.linear2(hidden)))


class Transformer(SequenceModel):
    """Decoder layers over the embedded input, which is both target and memory; one linear head.

    State names of ``layers.*`` are those of ``nn.TransformerDecoder``. As there, the layers start
    as copies of one another.
    """

    causal_mask: Tensor

    def __init__(self, architecture: TransformerArchitecture, dropout: float) -> None:
        super().__init__()
        a = architecture
        self.token_embedding = nn.Embedding(a.vocab_size, a.hidden_size)
        self.position_embedding = nn.Embedding(a.seq_len, a.hidden_size)
        first = DecoderLayer(a.hidden_size, a.d_ff, a.num_heads, dropout)
        self.layers = nn.ModuleList(copy.deepcopy(first) for _ in range(a.num_layers))
        self.head = nn.Linear(a.hidden_size, a.vocab_size)
        mask = torch.full((a.seq_len, a.seq_len), float("-inf")).triu(1)
        self.register_buffer("causal_mask", mask, persistent=False)

    def draw_weights(self, stream: RandomStream) -> None:
        """Draw every parameter anew, in the order of ``named_parameters``.

        Layers after the first take nothing from the stream: they become copies of it again.
        """
        draw_normal(self.token_embedding.weight, stream, 1.0)
        draw_normal(self.position_embedding.weight, stream, 1.0)
        first, *others = self._decoder_layers()
        first.draw_weights(stream)
        for layer in others:
            layer.load_state_dict(first.state_dict())
        draw_linear(self.head, stream)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits (B, T, V) for ``tokens`` (B, T) of int64."""
        memory = self.token_embedding(tokens) + self.position_embedding.weight  # (B, T, d)
        x = memory
        for layer in self.layers:
            x = layer(x, memory, self.causal_mask)
        return self.head(x)

    def dropout_sites(self) -> list[tuple[Dropout, int]]:
        """Return every dropout layer with its number of elements per batch row."""
        seq_len, hidden_size = self.position_embedding.weight.shape
        sites: list[tuple[Dropout, int]] = []
        for layer in self._decoder_layers():
            attention = layer.self_attn.num_heads * seq_len * seq_len
            sites += [
                (layer.self_attn.dropout, attention),
                (layer.dropout1, seq_len * hidden_size),
                (layer.multihead_attn.dropout, attention),
                (layer.dropout2, seq_len * hidden_size),
                (layer.dropout, seq_len * layer.linear1.out_features),
                (layer.dropout3, seq_len * hidden_size),
            ]
        return sites

    def _decoder_layers(self) -> list[DecoderLayer]:
        return cast("list[DecoderLayer]", list(self.layers))
