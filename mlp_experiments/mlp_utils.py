"""The MLP's shape, its parameter count, the width for a parameter budget. Imports no torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from training.errors import UserError

if TYPE_CHECKING:
    from mlp_experiments.mlp import MLP

PAPER_BUDGETS = (10_000, 30_000, 90_000)
PAPER_DEPTHS = (0, 1, 2, 3, 4, 5)


@dataclass(frozen=True)
class MLPArchitecture:
    """An MLP's shape; ``hidden_size`` is 0 when there is no hidden layer."""

    model: ClassVar[str] = "mlp"

    hidden_size: int
    num_layers: int
    vocab_size: int = 10
    seq_len: int = 10

    def __post_init__(self) -> None:
        """Refuse shapes that do not exist."""
        if self.num_layers < 0:
            raise UserError(f"--layers must be 0 or more, got {self.num_layers}")
        if self.num_layers > 0 and self.hidden_size < 1:
            raise UserError(f"--hidden-size must be at least 1, got {self.hidden_size}")
        if self.num_layers == 0 and self.hidden_size != 0:
            raise UserError("a network without hidden layers has no --hidden-size")

    @property
    def num_parameters(self) -> int:
        """Weights and biases; with D = V*T: 2*D*h + (L-1)*h^2 + L*h + D, or D^2 + D for L = 0."""
        features, h, layers = self.vocab_size * self.seq_len, self.hidden_size, self.num_layers
        if layers == 0:
            return features * features + features
        return 2 * features * h + (layers - 1) * h * h + layers * h + features

    @property
    def name(self) -> str:
        """Short name, such as ``49x1``."""
        return f"{self.hidden_size}x{self.num_layers}"

    def columns(self) -> dict[str, int]:
        """Return the CSV columns that identify the architecture."""
        return {
            "num_parameters": self.num_parameters,
            "hidden_size": self.hidden_size,
            "num_layers": self.num_layers,
        }

    def build(self, dropout: float = 0.0) -> MLP:
        """Return a freshly initialised module (torch's defaults, torch's global generator)."""
        from mlp_experiments.mlp import MLP  # brings torch

        return MLP(self.vocab_size, self.seq_len, self.hidden_size, self.num_layers, dropout)


def architecture_for_budget(
    params: int, num_layers: int, vocab_size: int = 10, seq_len: int = 10
) -> MLPArchitecture:
    """Return the MLP of ``num_layers`` hidden layers whose size is nearest to ``params``.

    The width is the positive root of the parameter count (see
    :attr:`MLPArchitecture.num_parameters`), rounded to the nearest integer. Depth 0 has one size
    whatever the budget. Raises :class:`UserError` when not even width 1 fits.
    """
    if num_layers <= 0:
        return MLPArchitecture(0, num_layers, vocab_size, seq_len)
    smallest = MLPArchitecture(1, num_layers, vocab_size, seq_len)
    if params < smallest.num_parameters:
        raise UserError(
            f"{params} parameters are too few for {num_layers} hidden layers: "
            f"the smallest possible budget is {smallest.num_parameters}"
        )
    features = vocab_size * seq_len
    quadratic, linear, constant = num_layers - 1, 2 * features + num_layers, features - params
    if quadratic == 0:
        root = -constant / linear
    else:
        root = (math.sqrt(linear**2 - 4 * quadratic * constant) - linear) / (2 * quadratic)
    return MLPArchitecture(round(root), num_layers, vocab_size, seq_len)
