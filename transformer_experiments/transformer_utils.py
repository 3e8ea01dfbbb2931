"""The transformer's shape and its parameter count. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from training.errors import UserError

if TYPE_CHECKING:
    from transformer_experiments.transformer import Transformer


@dataclass(frozen=True)
class TransformerArchitecture:
    """A transformer's shape; ``hidden_size`` is d_model, shared out over ``num_heads``."""

    model: ClassVar[str] = "transformer"

    hidden_size: int
    d_ff: int
    num_heads: int
    num_layers: int
    vocab_size: int = 10
    seq_len: int = 10

    def __post_init__(self) -> None:
        """Refuse shapes that do not exist."""
        for flag, value in (
            ("--layers", self.num_layers),
            ("--heads", self.num_heads),
            ("--hidden-size", self.hidden_size),
            ("--d-ff", self.d_ff),
        ):
            if value < 1:
                raise UserError(f"{flag} must be at least 1, got {value}")
        if self.hidden_size % self.num_heads:
            raise UserError(
                f"--heads {self.num_heads} does not divide the hidden size {self.hidden_size}"
            )

    @property
    def num_parameters(self) -> int:
        """Every trained number: embeddings, decoder layers, head."""
        d, f = self.hidden_size, self.d_ff
        attention = 4 * d * d + 4 * d  # query, key, value and output projections
        layer = 2 * attention + 2 * d * f + f + d + 3 * 2 * d  # two blocks, MLP, three norms
        embeddings = (self.vocab_size + self.seq_len) * d
        return embeddings + self.num_layers * layer + d * self.vocab_size + self.vocab_size

    @property
    def name(self) -> str:
        """Short name, such as ``d32 ff380 h4 x1``."""
        return f"d{self.hidden_size} ff{self.d_ff} h{self.num_heads} x{self.num_layers}"

    def columns(self) -> dict[str, int]:
        """Return the CSV columns that identify the architecture."""
        return {
            "num_parameters": self.num_parameters,
            "hidden_size": self.hidden_size,
            "d_ff": self.d_ff,
            "num_heads": self.num_heads,
            "num_layers": self.num_layers,
        }

    def build(self, dropout: float = 0.1) -> Transformer:
        """Return a freshly initialised module (torch's defaults, torch's global generator)."""
        from transformer_experiments.transformer import Transformer  # brings torch

        return Transformer(
            self.vocab_size,
            self.seq_len,
            self.hidden_size,
            self.d_ff,
            self.num_heads,
            self.num_layers,
            dropout,
        )
