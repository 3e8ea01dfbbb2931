"""The MLP's shape, parameter count, width for a budget, published grid, and spec. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

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

    def __post_init__(self) -> None:
        """Refuse shapes that do not exist."""
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
        """Weights and biases; with D = V*T: 2*D*h + (L-1)*h^2 + L*h + D, or D^2 + D for L = 0."""
        features, h, layers = self.vocab_size * self.seq_len, self.hidden_size, self.num_layers
        if layers == 0:
            return features * features + features
        return 2 * features * h + (layers - 1) * h * h + layers * h + features

    @property
    def name(self) -> str:
        """Short name, such as ``49x1``."""
        return f"{self.hidden_size}x{self.num_layers}"


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


def solve(
    budget: int | None,
    vocab_size: int,
    seq_len: int,
    layers: int,
    hidden_size: int | None = None,
) -> MLPArchitecture:
    """Return the MLP that the flags mean: of a fixed width, or solved for ``budget``."""
    if hidden_size is not None:
        return MLPArchitecture(hidden_size, layers, vocab_size, seq_len)
    if budget is None and layers > 0:
        raise UserError("give --params or --hidden-size")
    return architecture_for_budget(budget or 1, layers, vocab_size, seq_len)


def grid(budget: int | None) -> Mapping[str, Sequence[int]]:
    """Return the published depths; depth 0, which has no width, only where a budget is given."""
    return {"layers": PAPER_DEPTHS[1:] if budget is None else PAPER_DEPTHS}


def _build(architecture: MLPArchitecture, dropout: float) -> MLP:
    from mlp_experiments.mlp import MLP  # brings torch

    a = architecture
    return MLP(a.vocab_size, a.seq_len, a.hidden_size, a.num_layers, dropout)


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
    # Measured by benchmarks/step_times.py: five repeats of 10,000 and 30,000 parameters train 2 to
    # 4 times as fast as one after the other; with larger ones it loses.
    stacked=StackedForm(_load_stacked, faster_up_to=40_000),
    native=NativeForm("mlp", shape=("hidden_size", "num_layers")),
    is_linear=lambda architecture: architecture.num_layers == 0,
)
