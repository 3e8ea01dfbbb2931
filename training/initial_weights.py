"""Initial weights with torch's or GPT-2's distributions, drawn from a stream of our own.

The numbers are computed in float64 and rounded once, to the parameter's float32, in NumPy: no
kernel of torch has a part in them, so they are the same bits on every machine.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from dataset.portable_math import orthonormal_columns
from dataset.random_stream import RandomStream


def draw_linear(linear: nn.Linear, stream: RandomStream, zero_bias: bool = False) -> None:
    """Draw weight and bias, both uniform in +-1/sqrt(fan_in); a zero bias takes no words.

    That is torch's ``kaiming_uniform_`` with a = sqrt(5): sqrt(6 / ((1 + a*a) * fan_in)).
    """
    bound = 1 / math.sqrt(linear.in_features)
    _draw_uniform(linear.weight, stream, bound)
    if zero_bias:
        nn.init.zeros_(linear.bias)
    else:
        _draw_uniform(linear.bias, stream, bound)


def draw_xavier_uniform(weight: Tensor, stream: RandomStream) -> None:
    """Draw a matrix (fan_out, fan_in) uniform in +-sqrt(6 / (fan_in + fan_out)).

    From Glorot and Bengio, Understanding the difficulty of training deep feedforward neural
    networks (AISTATS 2010), equation 16.
    """
    fan_out, fan_in = weight.shape
    _draw_uniform(weight, stream, math.sqrt(6 / (fan_in + fan_out)))


def draw_normal(weight: Tensor, stream: RandomStream, deviation: float) -> None:
    """Draw every number normal with mean 0 and standard deviation ``deviation``."""
    _assign(weight, deviation * stream.normal(weight.numel()))


def reset_layer_norm(norm: nn.LayerNorm) -> None:
    """Set the scale to one and the shift to zero; nothing is drawn."""
    nn.init.ones_(norm.weight)
    nn.init.zeros_(norm.bias)


def draw_orthogonal(weight: Tensor, stream: RandomStream) -> None:
    """Draw a matrix with orthonormal rows or columns, whichever are fewer, times sqrt(2).

    It is uniform over all such matrices. The factor keeps the size of activations through ReLU
    layers: torch's ``orthogonal_`` with its gain for them; Saxe, McClelland and Ganguli, Exact
    solutions to the nonlinear dynamics of learning in deep linear neural networks (ICLR 2014).
    """
    rows, columns = weight.shape
    tall = stream.normal(weight.numel()).reshape(max(rows, columns), min(rows, columns))
    q = math.sqrt(2) * orthonormal_columns(tall)
    _assign(weight, q if rows >= columns else q.T)


def draw_orthogonal_weights(model: nn.Module, stream: RandomStream) -> None:
    """Draw the matrix of every linear map in ``model`` orthogonal, and set its bias to zero.

    Linear maps are the ``nn.Linear`` layers and what a module lists in ``projections()``: pairs of
    a matrix and its bias. Everything else stays as it is.
    """
    for module in model.modules():
        maps: list[tuple[Tensor, Tensor | None]] = []
        if isinstance(module, nn.Linear):
            maps = [(module.weight, module.bias)]
        elif callable(projections := getattr(module, "projections", None)):
            maps = projections()
        for weight, bias in maps:
            draw_orthogonal(weight, stream)
            if bias is not None:
                nn.init.zeros_(bias)


def _draw_uniform(parameter: Tensor, stream: RandomStream, bound: float) -> None:
    _assign(parameter, bound * (2 * stream.uniform(parameter.numel()) - 1))


def _assign(parameter: Tensor, values: np.ndarray) -> None:
    """Set ``parameter`` to ``values``, row by row, as many float64 as it has numbers."""
    rounded = values.astype(np.float32).reshape(parameter.shape)
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(rounded))
