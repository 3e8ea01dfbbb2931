"""The MLP's shape, parameter count, width for a budget, published grid, and spec. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dataset.encoding import whole_label
from training.errors import UserError
from training.protocol import Protocol
from training.spec import Architecture, Flag, ModelSpec, NativeForm, StackedForm

if TYPE_CHECKING:
    from torch import Tensor

    from mlp_experiments.mlp import MLP

PAPER_BUDGETS = (10_000, 30_000, 90_000)
PAPER_DEPTHS = (0, 1, 2, 3, 4, 5)


@dataclass(frozen=True)
class MLPArchitecture(Architecture):
    """An MLP's shape; ``hidden_size`` is 0 when there is no hidden layer."""

    hidden_size: int
    num_layers: int
    vocab_size: int = 10
    seq_len: int = 10
    label_vocab_size: int = 0  # 0: as the input's
    label_len: int = 0  # likewise

    def __post_init__(self) -> None:
        """Fill in the shape of labels; refuse shapes that do not exist."""
        object.__setattr__(self, "label_vocab_size", self.label_vocab_size or self.vocab_size)
        object.__setattr__(self, "label_len", self.label_len or self.seq_len)
        if self.num_layers < 0:
            raise UserError(f"--layers must be 0 or more, got {self.num_layers}")
        if self.num_layers > 0 and self.hidden_size < 1:
            raise UserError(f"--hidden-size must be at least 1, got {self.hidden_size}")
        if self.num_layers == 0 and self.hidden_size != 0:
            raise UserError(
                "a network without hidden layers has no --hidden-size (--layers chooses)"
            )

    @property
    def num_parameters(self) -> int:
        """Weights and biases: (D + E)*h + (L-1)*h^2 + L*h + E, or D*E + E for L = 0.

        D = V*T is the size of the one-hot input, E that of a one-hot label; published D = E = 100.
        """
        features, h, layers = self.vocab_size * self.seq_len, self.hidden_size, self.num_layers
        outputs = self.label_vocab_size * self.label_len
        if layers == 0:
            return features * outputs + outputs
        return (features + outputs) * h + (layers - 1) * h * h + layers * h + outputs

    @property
    def name(self) -> str:
        """Short name, such as ``49x1``."""
        return f"{self.hidden_size}x{self.num_layers}"


def solve(
    budget: int | None,
    layers: int,
    vocab_size: int = 10,
    seq_len: int = 10,
    label_vocab_size: int = 0,
    label_len: int = 0,
    hidden_size: int | None = None,
) -> MLPArchitecture:
    """Return the MLP of ``layers`` hidden layers: of a fixed width, or nearest to ``budget``.

    The width is the positive root of the parameter count (see
    :attr:`MLPArchitecture.num_parameters`), rounded to the nearest integer. Depth 0 has one size
    whatever the budget. Raises :class:`UserError` when not even width 1 fits.
    """
    task = vocab_size, seq_len, label_vocab_size, label_len
    if hidden_size is not None or layers <= 0:
        return MLPArchitecture(hidden_size or 0, layers, *task)
    if budget is None:
        raise UserError("give --params or --hidden-size")
    smallest = MLPArchitecture(1, layers, *task)
    if budget < smallest.num_parameters:
        raise UserError(
            f"{budget} parameters are too few for {layers} hidden layers: "
            f"the smallest possible budget is {smallest.num_parameters}"
        )
    features, outputs = vocab_size * seq_len, smallest.label_vocab_size * smallest.label_len
    linear = features + outputs + layers
    quadratic, constant = layers - 1, outputs - budget
    if quadratic == 0:
        root = -constant / linear
    else:
        root = (math.sqrt(linear**2 - 4 * quadratic * constant) - linear) / (2 * quadratic)
    return MLPArchitecture(round(root), layers, *task)


def grid(budget: int | None) -> Mapping[str, Sequence[int]]:
    """Return the published depths; depth 0, which has no width, only where a budget is given."""
    return {"layers": PAPER_DEPTHS[1:] if budget is None else PAPER_DEPTHS}


def _build(architecture: MLPArchitecture, dropout: float) -> MLP:
    from mlp_experiments.mlp import MLP  # brings torch

    return MLP(architecture, dropout)


def _load_stacked() -> Callable[..., Tensor]:
    from mlp_experiments.mlp_stacked import mlp_logits

    return mlp_logits


SPEC = ModelSpec(
    name="mlp",
    architecture=MLPArchitecture,
    solve=solve,
    build=_build,
    paper=Protocol(learning_rate=1e-2, dropout=0.0),
    flags=(
        Flag(
            "layers",
            "hidden layers, 0 or more",
            default=1,
            smallest=0,
            metavar="L",
            searched="0 to 5, with --hidden-size alone 1 to 5",
        ),
        Flag("hidden_size", "units per layer instead of --params", metavar="H"),
    ),
    budget_help="parameter budget, solved for the width",
    grid=grid,
    published_budgets=PAPER_BUDGETS,
    default_sequences=256,
    encode=whole_label,
    # Measured by benchmarks/step_times.py: five repeats of 10,000 and 30,000 parameters train 2 to
    # 4 times as fast as one after the other; with larger ones it loses.
    stacked=StackedForm(_load_stacked, faster_up_to=40_000),
    native=NativeForm("mlp", shape=("hidden_size", "num_layers")),
    is_linear=lambda architecture: architecture.num_layers == 0,
)
