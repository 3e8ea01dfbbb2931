"""The transformer's shape, parameter count, budget, published grid, and spec. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.errors import UserError
from training.protocol import Protocol
from training.spec import Flag, ModelSpec, NativeForm
from transformer_experiments.shapes import (
    TransformerShape,
    label_note,
    nearest_shape,
    require_layers,
)

if TYPE_CHECKING:
    from transformer_experiments.transformer import Transformer

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
DEFAULT_HEADS = (1, 2, 4, 8)  # for budgets that are not published ones


@dataclass(frozen=True)
class TransformerArchitecture(TransformerShape):
    """The published transformer's shape."""

    vocab_size: int = 10
    seq_len: int = 10

    @property
    def num_parameters(self) -> int:
        """Every trained number: embeddings, decoder layers, head."""
        d, f = self.hidden_size, self.d_ff
        attention = 4 * d * d + 4 * d  # query, key, value and output projections
        layer = 2 * attention + 2 * d * f + f + d + 3 * 2 * d  # two blocks, MLP, three norms
        embeddings = (self.vocab_size + self.seq_len) * d
        return embeddings + self.num_layers * layer + d * self.vocab_size + self.vocab_size


def solve(
    budget: int | None,
    heads: int,
    layers: int,
    hidden_size: int | None = None,
    d_ff: int | None = None,
    exact_params: bool = False,
    vocab_size: int = 10,
    seq_len: int = 10,
) -> TransformerArchitecture:
    """Return the transformer that ``budget`` means.

    A published label means the published configuration. Any other number, or ``exact_params``, or
    one fixed dimension, is solved for the true parameter count within 1 %, with ``d_ff`` as near to
    4 * ``hidden_size`` as that allows. With both dimensions fixed ``budget`` is only a label.
    Raises :class:`UserError` for an impossible budget.
    """
    require_layers(heads, layers)

    def make(size: int, width: int) -> TransformerArchitecture:
        return TransformerArchitecture(size, width, heads, layers, vocab_size, seq_len)

    if budget in PAPER_CONFIGURATIONS and not exact_params and hidden_size is None and d_ff is None:
        published_size, feed_forward = PAPER_CONFIGURATIONS[budget]
        if layers not in feed_forward:
            raise UserError(
                f"no published configuration of {budget} has {layers} layers; "
                "add --exact-params to solve for the true count"
            )
        return make(published_size, feed_forward[layers])
    matrices = 8  # of two attention blocks
    return nearest_shape(budget, heads, layers, make, hidden_size, d_ff, matrices, step=heads)


def grid(budget: int | None) -> Mapping[str, Sequence[int]]:
    """Return the depths and heads of a search: the published ones of a published budget."""
    heads = DEFAULT_HEADS if budget is None else PAPER_HEADS.get(budget, DEFAULT_HEADS)
    return {"layers": PAPER_DEPTHS, "heads": heads}


def _build(architecture: TransformerArchitecture, dropout: float) -> Transformer:
    from transformer_experiments.transformer import Transformer  # brings torch

    return Transformer(architecture, dropout)


SPEC = ModelSpec(
    name="transformer",
    architecture=TransformerArchitecture,
    solve=solve,
    build=_build,
    paper=Protocol(learning_rate=5e-4, dropout=0.1),
    flags=(
        Flag("layers", "decoder layers", default=1, metavar="L", searched="1 to 3"),
        Flag(
            "heads",
            "attention heads per layer",
            default=4,
            metavar="H",
            searched="the published ones of the budget, else 1 2 4 8",
        ),
        Flag("hidden_size", "d_model, a multiple of the heads", metavar="D"),
        Flag("d_ff", "feed-forward width", metavar="F"),
        Flag(
            "exact_params",
            "solve 32000, 64000 and 128000, the published labels, for their true count too",
            switch=True,
        ),
    ),
    budget_help="parameter budget; 32000, 64000 and 128000 are the published labels",
    grid=grid,
    published_budgets=tuple(PAPER_CONFIGURATIONS),
    default_sequences=16,
    label_note=label_note,
    native=NativeForm("transformer", shape=("hidden_size", "d_ff", "num_heads", "num_layers")),
)
