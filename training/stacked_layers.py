"""Layers for many models at once: every tensor has a leading model dimension M.

Parameters come as a dict from a module's own names to (M, ...) tensors.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Parameters = dict[str, Tensor]
Drop = Callable[[int, Tensor], Tensor]  # (dropout site, x) -> x with the site's mask applied


def linear(p: Parameters, name: str, x: Tensor) -> Tensor:
    """(M, rows, in) -> (M, rows, out)."""
    return torch.baddbmm(p[f"{name}.bias"].unsqueeze(1), x, p[f"{name}.weight"].transpose(1, 2))


def layer_norm(p: Parameters, name: str, x: Tensor) -> Tensor:
    """(M, rows, d) -> (M, rows, d), normalised over d."""
    normal = F.layer_norm(x, x.shape[-1:])
    return normal * p[f"{name}.weight"].unsqueeze(1) + p[f"{name}.bias"].unsqueeze(1)
