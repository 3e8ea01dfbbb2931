"""The MLP for many models at once: every tensor has a leading model dimension M."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional as F

from training.stacked_layers import Drop, Parameters, linear

if TYPE_CHECKING:
    from mlp_experiments.mlp_utils import MLPArchitecture


def mlp_logits(architecture: MLPArchitecture, p: Parameters, one_hot: Tensor, drop: Drop) -> Tensor:
    """Return logits (M, B, T, V) for ``one_hot`` (M, B, T, V)."""
    num_hidden = architecture.num_layers
    x = one_hot.flatten(2)  # (M, B, T*V)
    for layer in range(num_hidden):
        x = drop(layer, F.relu(linear(p, f"linears.{layer}", x)))
    return linear(p, f"linears.{num_hidden}", x).view(one_hot.shape)
