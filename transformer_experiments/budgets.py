"""From a transformer parameter budget to an architecture."""

from __future__ import annotations

import math

from training.errors import UserError
from transformer_experiments.transformer_utils import TransformerArchitecture

# Published label -> (d_model, {num_layers: d_ff}); the labels are not the true counts.
PAPER_CONFIGURATIONS = {
    32_000: (32, {1: 380, 2: 128, 3: 40}),
    64_000: (64, {1: 768, 2: 256, 3: 83}),
    128_000: (128, {1: 1550, 2: 512, 3: 175}),
}
PAPER_HEADS = {
    32_000: (1, 2, 4, 8),
    64_000: (1, 2, 4, 8, 16, 32),
    128_000: (1, 2, 4, 8, 16, 32, 64),
}
PAPER_DEPTHS = (1, 2, 3)
TOLERANCE = 0.01


def architecture_for_budget(
    params: int | None,
    num_heads: int,
    num_layers: int,
    *,
    hidden_size: int | None = None,
    d_ff: int | None = None,
    exact: bool = False,
    vocab_size: int = 10,
    seq_len: int = 10,
) -> TransformerArchitecture:
    """Return the transformer that the budget ``params`` means.

    A published label means the published configuration. Any other number, or ``exact``, or one
    fixed dimension, is solved for the true parameter count within 1 %, with ``d_ff`` as near to
    4 * ``hidden_size`` as that allows. With both dimensions fixed ``params`` is only a label.
    Raises :class:`UserError` for an impossible budget.
    """
    task = {"vocab_size": vocab_size, "seq_len": seq_len}
    for flag, value in (("--heads", num_heads), ("--layers", num_layers)):
        if value < 1:
            raise UserError(f"{flag} must be at least 1, got {value}")
    if hidden_size is not None and d_ff is not None:
        return TransformerArchitecture(hidden_size, d_ff, num_heads, num_layers, **task)
    if params is None:
        raise UserError("give --params, or both --hidden-size and --d-ff")
    if params in PAPER_CONFIGURATIONS and not exact and hidden_size is None and d_ff is None:
        published_size, feed_forward = PAPER_CONFIGURATIONS[params]
        if num_layers not in feed_forward:
            raise UserError(
                f"no published configuration of {params} has {num_layers} layers; "
                "add --exact-params to solve for the true count"
            )
        return TransformerArchitecture(
            published_size, feed_forward[num_layers], num_heads, num_layers, **task
        )
    if hidden_size is None:
        # 8 * d^2 parameters per layer are attention alone, so no larger d can fit.
        largest = math.isqrt(max(params, 0) // (8 * num_layers)) + num_heads
        sizes = range(num_heads, largest + 1, num_heads)
    else:
        sizes = [hidden_size]
    candidates = [
        TransformerArchitecture(size, width, num_heads, num_layers, **task)
        for size in sizes
        for width in (
            [d_ff]
            if d_ff is not None
            else [_feed_forward(params, size, num_heads, num_layers, task)]
        )
    ]
    fitting = [c for c in candidates if abs(c.num_parameters - params) <= TOLERANCE * params]
    if not fitting:
        raise UserError(_impossible(params, candidates, num_heads, num_layers))
    return min(fitting, key=lambda c: (_distance_from_4(c), abs(c.num_parameters - params)))


def _feed_forward(params: int, size: int, num_heads: int, num_layers: int, task: dict) -> int:
    """Return the d_ff >= 1 whose parameter count is nearest to ``params``."""
    smallest = TransformerArchitecture(size, 1, num_heads, num_layers, **task)
    per_unit = num_layers * (2 * size + 1)
    return max(1, 1 + round((params - smallest.num_parameters) / per_unit))


def _distance_from_4(architecture: TransformerArchitecture) -> float:
    return abs(math.log(architecture.d_ff / (4 * architecture.hidden_size)))


def _impossible(
    params: int, candidates: list[TransformerArchitecture], num_heads: int, num_layers: int
) -> str:
    smallest = min(candidates, key=lambda c: c.num_parameters)
    shape = f"{num_heads} heads and {num_layers} layers"
    if params < smallest.num_parameters:
        return (
            f"{params} parameters are too few for {shape}: "
            f"the smallest possible budget is {smallest.num_parameters}"
        )
    nearest = min(candidates, key=lambda c: abs(c.num_parameters - params))
    return (
        f"no transformer with {shape} comes within 1 % of {params} parameters: "
        f"the nearest has {nearest.num_parameters}"
    )


def label_note(budget: int, architecture: TransformerArchitecture) -> str | None:
    """Return one line when ``budget`` is not within 1 % of the true parameter count."""
    true_count = architecture.num_parameters
    if abs(true_count - budget) <= TOLERANCE * budget:
        return None
    return (
        f"note: {budget:,} is the label of this configuration, not its size: "
        f"{architecture.name} has {true_count:,} parameters"
    )
