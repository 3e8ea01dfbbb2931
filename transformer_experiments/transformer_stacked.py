"""The transformer for many models at once: every tensor has a leading model dimension M."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from training.stacked_layers import Drop, Parameters, layer_norm, linear

if TYPE_CHECKING:
    from transformer_experiments.transformer_utils import TransformerArchitecture


def transformer_logits(
    architecture: TransformerArchitecture, p: Parameters, one_hot: Tensor, drop: Drop
) -> Tensor:
    """Return logits (M, B, T, V) for ``one_hot`` (M, B, T, V)."""
    models, batch, seq_len, _ = one_hot.shape
    num_heads = architecture.num_heads
    # A product instead of a lookup: its gradient needs no atomics, so it is reproducible on a GPU.
    embedded = torch.bmm(one_hot.flatten(1, 2), p["token_embedding.weight"])
    position = p["position_embedding.weight"].repeat(1, batch, 1)
    memory = embedded + position  # (M, B*T, d)
    hidden_size = memory.shape[-1]
    causal = torch.full((seq_len, seq_len), -math.inf, device=memory.device).triu(1)

    def attention(name: str, site: int, x: Tensor, source: Tensor, mask: Tensor | None) -> Tensor:
        weight, bias = p[f"{name}.in_proj_weight"], p[f"{name}.in_proj_bias"].unsqueeze(1)

        def heads(rows: Tensor, part: int) -> Tensor:  # (M, B, H, T, d/H)
            at = slice(part * hidden_size, (part + 1) * hidden_size)
            projected = torch.baddbmm(bias[..., at], rows, weight[:, at].transpose(1, 2))
            return projected.view(models, batch, seq_len, num_heads, -1).transpose(2, 3)

        query, key, value = heads(x, 0), heads(source, 1), heads(source, 2)
        scores = query @ key.transpose(-2, -1) / math.sqrt(hidden_size // num_heads)
        if mask is not None:
            scores = scores + mask
        weights = drop(site, scores.softmax(-1))  # (M, B, H, T, T)
        mixed = (weights @ value).transpose(2, 3).reshape(models, batch * seq_len, hidden_size)
        return linear(p, f"{name}.out_proj", mixed)

    def drop_rows(site: int, rows: Tensor) -> Tensor:  # sites count per batch row
        return drop(site, rows.view(models, batch, -1)).view(rows.shape)

    x = memory
    for layer in range(architecture.num_layers):
        name, site = f"layers.{layer}", 6 * layer
        attended = attention(f"{name}.self_attn", site, x, x, causal)
        x = layer_norm(p, f"{name}.norm1", x + drop_rows(site + 1, attended))
        attended = attention(f"{name}.multihead_attn", site + 2, x, memory, None)
        x = layer_norm(p, f"{name}.norm2", x + drop_rows(site + 3, attended))
        hidden = drop_rows(site + 4, F.relu(linear(p, f"{name}.linear1", x)))
        x = x + drop_rows(site + 5, linear(p, f"{name}.linear2", hidden))
        x = layer_norm(p, f"{name}.norm3", x)
    return linear(p, "head", x).view(one_hot.shape)
