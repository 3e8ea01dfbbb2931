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
    require_layers(num_heads, num_layers)

    def make(size: int, width: int) -> TransformerArchitecture:
        return TransformerArchitecture(size, width, num_heads, num_layers, vocab_size, seq_len)

    if params in PAPER_CONFIGURATIONS and not exact and hidden_size is None and d_ff is None:
        published_size, feed_forward = PAPER_CONFIGURATIONS[params]
        if num_layers not in feed_forward:
            raise UserError(
                f"no published configuration of {params} has {num_layers} layers; "
                "add --exact-params to solve for the true count"
            )
        return make(published_size, feed_forward[num_layers])
    return nearest_shape(
        params,
        num_heads,
        num_layers,
        make,
        hidden_size=hidden_size,
        d_ff=d_ff,
        matrices=8,  # of two attention blocks
        step=num_heads,
    )


def solve(
    budget: int | None,
    vocab_size: int,
    seq_len: int,
    layers: int,
    heads: int,
    hidden_size: int | None = None,
    d_ff: int | None = None,
    exact_params: bool = False,
) -> TransformerArchitecture:
    """Return the transformer that the flags mean; see :func:`architecture_for_budget`."""
    return architecture_for_budget(
        budget,
        heads,
        layers,
        hidden_size=hidden_size,
        d_ff=d_ff,
        exact=exact_params,
        vocab_size=vocab_size,
        seq_len=seq_len,
    )


def grid(budget: int | None) -> Mapping[str, Sequence[int]]:
    """Return the depths and heads of a search: the published ones of a published budget."""
    heads = DEFAULT_HEADS if budget is None else PAPER_HEADS.get(budget, DEFAULT_HEADS)
    return {"layers": PAPER_DEPTHS, "heads": heads}


def _build(architecture: TransformerArchitecture, dropout: float) -> Transformer:
    from transformer_experiments.transformer import Transformer  # brings torch

    a = architecture
    return Transformer(
        a.vocab_size, a.seq_len, a.hidden_size, a.d_ff, a.num_heads, a.num_layers, dropout
    )


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
