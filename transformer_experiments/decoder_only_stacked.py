"""The decoder-only model for many models at once: every tensor has a leading model dimension M."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from training.stacked_layers import Drop, Parameters, layer_norm, linear
from transformer_experiments.decoder_only import Tables, activate, rotary_tables, rotate

if TYPE_CHECKING:
    from transformer_experiments.decoder_only_utils import DecoderOnlyArchitecture


def decoder_only_logits(
    architecture: DecoderOnlyArchitecture, p: Parameters, one_hot: Tensor, drop: Drop
) -> Tensor:
    """Return logits (M, B, S, V) for ``one_hot`` (M, B, S, V), S = 2T - 1."""
    models, batch, length, _ = one_hot.shape
    num_heads, device = architecture.num_heads, one_hot.device
    width = architecture.hidden_size // num_heads
    causal = torch.full((length, length), -math.inf, device=device).triu(1)
    tables: Tables | None = None
    if architecture.position == "rope":
        cosine, sine = rotary_tables(length, width, device)
        tables = cosine.float(), sine.float()

    def drop_rows(site: int, rows: Tensor) -> Tensor:  # sites count per batch row
        return drop(site, rows.view(models, batch, -1)).view(rows.shape)

    def attention(name: str, site: int, x: Tensor) -> Tensor:
        parts = linear(p, f"{name}.in_proj", x)
        parts = parts.view(models, batch, length, 3, num_heads, width)
        query, key, value = parts.permute(3, 0, 1, 4, 2, 5)  # (M, B, H, S, d/H)
        if tables is not None:
            query, key = rotate(query, tables), rotate(key, tables)
        scores = query @ key.transpose(-2, -1) / math.sqrt(width)
        weights = drop(site, (scores + causal).softmax(-1))  # (M, B, H, S, S)
        mixed = (weights @ value).transpose(2, 3).reshape(x.shape)
        return linear(p, f"{name}.out_proj", mixed)

    def feed_forward(name: str, x: Tensor) -> Tensor:
        hidden = activate(architecture.activation, linear(p, f"{name}.linear1", x))
        return linear(p, f"{name}.linear2", hidden)

    # A product instead of a lookup: its gradient needs no atomics, so it is reproducible on a GPU.
    x = torch.bmm(one_hot.flatten(1, 2), p["token_embedding.weight"])  # (M, B*S, d)
    if architecture.position == "learned":
        x = x + p["position_embedding.weight"].repeat(1, batch, 1)
    x = drop_rows(0, x)
    for layer in range(architecture.num_layers):
        name, site = f"layers.{layer}", 1 + 3 * layer
        if architecture.norm == "pre":
            normal = layer_norm(p, f"{name}.norm1", x)
            x = x + drop_rows(site + 1, attention(f"{name}.attention", site, normal))
            normal = layer_norm(p, f"{name}.norm2", x)
            x = x + drop_rows(site + 2, feed_forward(name, normal))
        else:
            x = x + drop_rows(site + 1, attention(f"{name}.attention", site, x))
            x = layer_norm(p, f"{name}.norm1", x)
            x = x + drop_rows(site + 2, feed_forward(name, x))
            x = layer_norm(p, f"{name}.norm2", x)
    if architecture.norm == "pre":
        x = layer_norm(p, "norm", x)
    head = "token_embedding" if architecture.head == "tied" else "head"
    return torch.bmm(x, p[f"{head}.weight"].transpose(1, 2)).view(one_hot.shape)
