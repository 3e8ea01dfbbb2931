"""A toy model in a file of its own: logits from a table with one row per hash of the input.

Two inputs that share a row cannot both be memorized, so its threshold is about the square root of
the number of rows.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.errors import UserError
from training.protocol import Protocol
from training.spec import Architecture, Flag, ModelSpec


@dataclass(frozen=True)
class LookupArchitecture(Architecture):
    """``rows`` rows of T * V logits."""

    rows: int
    vocab_size: int = 10
    seq_len: int = 10

    @property
    def num_parameters(self) -> int:
        """One number per row, position and token."""
        return self.rows * self.seq_len * self.vocab_size


def solve(
    budget: int | None, vocab_size: int, seq_len: int, rows: int | None = None
) -> LookupArchitecture:
    """Return the table of ``rows`` rows, or the largest within ``budget`` parameters."""
    if rows is None and budget is None:
        raise UserError("give --params or --rows")
    return LookupArchitecture(rows or max(1, budget // (seq_len * vocab_size)), vocab_size, seq_len)


def build(architecture: LookupArchitecture, dropout: float):
    """Return the module, with its table at zero."""
    import torch
    from torch import nn

    class Lookup(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            features = architecture.seq_len * architecture.vocab_size
            self.table = nn.Embedding(architecture.rows, features)
            factors = torch.arange(1, architecture.seq_len + 1) ** 3 * 7919 % 1_000_003
            self.register_buffer("factors", factors, persistent=False)

        def draw_weights(self, stream) -> None:
            nn.init.zeros_(self.table.weight)

        def dropout_sites(self) -> list:
            return []

        def forward(self, tokens):  # (B, T) -> (B, T, V)
            row = (tokens * self.factors).sum(1) % architecture.rows
            return self.table(row).view(*tokens.shape, architecture.vocab_size)

    return Lookup()


SPEC = ModelSpec(
    name="lookup",
    architecture=LookupArchitecture,
    solve=solve,
    build=build,
    paper=Protocol(learning_rate=0.1, weight_decay=0.0),
    flags=(Flag("rows", "rows of the table", metavar="R"),),
    grid=lambda budget: {"rows": [64]} if budget is None else {},
)
