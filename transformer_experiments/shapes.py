"""What the two transformers have in common: their sizes, and the shape for a budget. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from training.errors import UserError
from training.spec import Architecture

TOLERANCE = 0.01  # of the budget


@dataclass(frozen=True)
class TransformerShape(Architecture):
    """The sizes of a transformer; ``hidden_size`` is d_model, shared out over ``num_heads``."""

    hidden_size: int
    d_ff: int
    num_heads: int
    num_layers: int

    def __post_init__(self) -> None:
        """Refuse shapes that do not exist."""
        require_layers(self.num_heads, self.num_layers)
        for flag, value in (("--hidden-size", self.hidden_size), ("--d-ff", self.d_ff)):
            if value < 1:
                raise UserError(f"{flag} must be at least 1, got {value}")
        if self.hidden_size % self.num_heads:
            raise UserError(
                f"--heads {self.num_heads} does not divide the hidden size {self.hidden_size}"
            )

    @property
    def name(self) -> str:
        """Short name, such as ``d32 ff380 h4 x1``."""
        return f"d{self.hidden_size} ff{self.d_ff} h{self.num_heads} x{self.num_layers}"


Shape = TypeVar("Shape", bound=TransformerShape)


def require_layers(num_heads: int, num_layers: int) -> None:
    """Raise :class:`UserError` unless there is a head and a layer at least."""
    for flag, value in (("--layers", num_layers), ("--heads", num_heads)):
        if value < 1:
            raise UserError(f"{flag} must be at least 1, got {value}")


def nearest_shape(
    params: int | None,
    num_heads: int,
    num_layers: int,
    make: Callable[[int, int], Shape],
    hidden_size: int | None,
    d_ff: int | None,
    matrices: int,
    step: int,
) -> Shape:
    """Return the shape whose true parameter count is within 1 % of ``params``.

    ``make(hidden_size, d_ff)`` is the shape of these two sizes, of ``num_heads`` and
    ``num_layers``. Every ``hidden_size`` gets the ``d_ff`` whose count is nearest to ``params``; of
    those that fit, it is the one with ``d_ff`` nearest to 4 * ``hidden_size``. What is not None is
    fixed. With both fixed ``params`` is only a label. Every layer has
    ``matrices`` of d x d numbers, whatever ``d_ff``; d moves in steps of ``step``. Raises
    :class:`UserError` where no shape fits.
    """
    require_layers(num_heads, num_layers)
    if hidden_size is not None and d_ff is not None:
        return make(hidden_size, d_ff)
    if params is None:
        raise UserError("give --params, or both --hidden-size and --d-ff")
    if hidden_size is None:
        # The d x d matrices alone are as many parameters as that, so no larger d can fit.
        largest = math.isqrt(max(params, 0) // (matrices * num_layers)) + step
        sizes = list(range(step, largest + 1, step))
    else:
        sizes = [hidden_size]
    candidates = [
        make(size, _feed_forward(params, size, make) if d_ff is None else d_ff) for size in sizes
    ]
    fitting = [c for c in candidates if abs(c.num_parameters - params) <= TOLERANCE * params]
    if not fitting:
        raise UserError(_impossible(params, candidates, num_heads, num_layers))
    return min(fitting, key=lambda c: (_distance_from_4(c), abs(c.num_parameters - params)))


def _feed_forward(params: int, size: int, make: Callable[[int, int], Shape]) -> int:
    """Return the d_ff >= 1 whose parameter count, linear in it, is nearest to ``params``."""
    smallest = make(size, 1).num_parameters
    per_unit = make(size, 2).num_parameters - smallest
    return max(1, 1 + round((params - smallest) / per_unit))


def _distance_from_4(shape: TransformerShape) -> float:
    return abs(math.log(shape.d_ff / (4 * shape.hidden_size)))


def _impossible(params: int, candidates: list[Shape], num_heads: int, num_layers: int) -> str:
    smallest = min(candidates, key=lambda c: c.num_parameters)
    sizes = f"{num_heads} heads and {num_layers} layers"
    if params < smallest.num_parameters:
        return (
            f"{params} parameters are too few for {sizes}: "
            f"the smallest possible budget is {smallest.num_parameters}"
        )
    nearest = min(candidates, key=lambda c: abs(c.num_parameters - params))
    return (
        f"no transformer with {sizes} comes within 1 % of {params} parameters: "
        f"the nearest has {nearest.num_parameters}"
    )


def label_note(budget: int, shape: TransformerShape) -> str | None:
    """Return one line when ``budget`` is not within 1 % of the true parameter count."""
    true_count = shape.num_parameters
    if abs(true_count - budget) <= TOLERANCE * budget:
        return None
    return (
        f"note: {budget:,} is the label of this configuration, not its size: "
        f"{shape.name} has {true_count:,} parameters"
    )
