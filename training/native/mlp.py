"""The MLP trained by the compiled library."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from training.native.model import NativeModel

if TYPE_CHECKING:
    from mlp_experiments.mlp import MLP


class NativeMLP(NativeModel):
    """An :class:`mlp_experiments.mlp.MLP` in training; see :class:`NativeModel`."""

    name: ClassVar[str] = "mlp"

    def shape(self, module: MLP) -> list[int]:
        """Return [hidden_size, num_layers]; hidden_size is 0 without hidden layers."""
        num_layers = len(module.linears) - 1
        return [module.linears[0].out_features if num_layers else 0, num_layers]
