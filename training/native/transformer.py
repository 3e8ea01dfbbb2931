"""The transformer trained by the compiled library."""

from __future__ import annotations

import copy
import ctypes
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from training.native.libraries import WIDE_HEAD_DIM, attention_library
from training.native.model import NativeModel, available_library
from training.protocol import Protocol
from training.streams import MaskStream

if TYPE_CHECKING:
    from transformer_experiments.transformer import Transformer


class NativeTransformer(NativeModel):
    """A :class:`Transformer` in training; see :class:`NativeModel`.

    For narrow heads the library orders the columns of queries, keys, values and their mixture by
    feature, then head, instead of by head, then feature. Shuffling the weights around them so, on
    their way in and out, changes nothing else.
    """

    name: ClassVar[str] = "transformer"

    def __init__(
        self,
        module: Transformer,
        inputs: np.ndarray,
        labels: np.ndarray,
        protocol: Protocol,
        masks: MaskStream | None = None,
    ) -> None:
        """See :class:`NativeModel`."""
        heads, hidden_size = module.layers[0].self_attn.num_heads, module.head.in_features
        self._order = (heads, hidden_size // heads)
        self._narrow = hidden_size // heads < WIDE_HEAD_DIM
        self._attention = available_library(attention_library(hidden_size // heads))
        module = copy.deepcopy(module)
        module.vocab_size = module.head.out_features
        module.seq_len = module.position_embedding.num_embeddings
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(self._turned(name, parameter, self._order))
        super().__init__(module, inputs, labels, protocol, masks)

    def shape(self, module: Transformer) -> list[int]:
        """Return [hidden_size, d_ff, num_heads, num_layers, address of the attention factory]."""
        return [
            module.head.in_features,
            module.layers[0].linear1.out_features,
            module.layers[0].self_attn.num_heads,
            len(module.layers),
            ctypes.cast(self._attention.attention_create, ctypes.c_void_p).value,
        ]

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of the weights under the module's names and in its shapes."""
        back = self._order[::-1]
        return {k: self._turned(k, v, back) for k, v in super().state_dict().items()}

    def _turned(self, name: str, parameter: Tensor, order: tuple[int, int]) -> Tensor:
        """Return ``parameter`` with its attention columns, split as ``order``, turned round."""
        if not self._narrow or "attn" not in name or name.endswith("out_proj.bias"):
            return parameter
        if name.endswith("out_proj.weight"):  # (d, d): the mixture's columns
            split = parameter.reshape(len(parameter), *order)
        else:  # (3d, d) or (3d,): query, key and value rows
            split = parameter.reshape(3, *order, -1)
        return split.transpose(1, 2).reshape(parameter.shape)
