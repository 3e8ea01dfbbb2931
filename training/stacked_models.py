"""Both architectures for many models at once: every tensor has a leading model dimension M.

Parameters come as a dict from the module's own names to (M, ...) tensors. ``drop(site, x)`` applies
the mask of one dropout site, numbered as in the module's ``dropout_sites()``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Parameters = dict[str, Tensor]
Drop = Callable[[int, Tensor], Tensor]


def _linear(p: Parameters, name: str, x: Tensor) -> Tensor:
    """(M, rows, in) -> (M, rows, out)."""
    return torch.baddbmm(p[f"{name}.bias"].unsqueeze(1), x, p[f"{name}.weight"].transpose(1, 2))


def _layer_norm(p: Parameters, name: str, x: Tensor) -> Tensor:
    """(M, rows, d) -> (M, rows, d), normalised over d."""
    normal = F.layer_norm(x, x.shape[-1:])
    return normal * p[f"{name}.weight"].unsqueeze(1) + p[f"{name}.bias"].unsqueeze(1)


def mlp_logits(p: Parameters, one_hot: Tensor, drop: Drop, num_heads: int) -> Tensor:
    """Return logits (M, B, T, V) for ``one_hot`` (M, B, T, V); ``num_heads`` is not used."""
    num_hidden = len(p) // 2 - 1
    x = one_hot.flatten(2)  # (M, B, T*V)
    for layer in range(num_hidden):
        x = drop(layer, F.relu(_linear(p, f"linears.{layer}", x)))
    return _linear(p, f"linears.{num_hidden}", x).view(one_hot.shape)


def transformer_logits(p: Parameters, one_hot: Tensor, drop: Drop, num_heads: int) -> Tensor:
    """Return logits (M, B, T, V) for ``one_hot`` (M, B, T, V)."""
    models, batch, seq_len, _ = one_hot.shape
    num_layers = sum(name.endswith("norm1.weight") for name in p)
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
        return _linear(p, f"{name}.out_proj", mixed)

    def drop_rows(site: int, rows: Tensor) -> Tensor:  # sites count per batch row
        return drop(site, rows.view(models, batch, -1)).view(rows.shape)

    x = memory
    for layer in range(num_layers):
        name, site = f"layers.{layer}", 6 * layer
        attended = attention(f"{name}.self_attn", site, x, x, causal)
        x = _layer_norm(p, f"{name}.norm1", x + drop_rows(site + 1, attended))
        attended = attention(f"{name}.multihead_attn", site + 2, x, memory, None)
        x = _layer_norm(p, f"{name}.norm2", x + drop_rows(site + 3, attended))
        hidden = drop_rows(site + 4, F.relu(_linear(p, f"{name}.linear1", x)))
        x = x + drop_rows(site + 5, _linear(p, f"{name}.linear2", hidden))
        x = _layer_norm(p, f"{name}.norm3", x)
    return _linear(p, "head", x).view(one_hot.shape)


LOGITS = {"mlp": mlp_logits, "transformer": transformer_logits}
