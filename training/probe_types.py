"""The question and the answer everything else passes around. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar
from typing import Protocol as Interface

from training.protocol import Protocol

if TYPE_CHECKING:
    from torch import nn


class Architecture(Interface):
    """What the training code needs to know of a model's shape; hashable."""

    model: ClassVar[str]
    vocab_size: int
    seq_len: int

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters."""

    @property
    def name(self) -> str:
        """Short name for tables and progress bars."""

    def columns(self) -> dict[str, int]:
        """CSV columns that identify the architecture."""

    def build(self, dropout: float) -> nn.Module:
        """Freshly initialised module, drawn from torch's global generator.

        Its ``draw_weights(stream)`` draws all parameters again, from a RandomStream.
        """


@dataclass(frozen=True)
class Probe:
    """One question: does this architecture memorize ``n`` mappings under this protocol?"""

    architecture: Architecture
    protocol: Protocol
    seed: int
    repeat: int
    n: int


@dataclass(frozen=True)
class Outcome:
    """The answer; ``loss`` in nats per token and ``accuracy`` belong to the restored weights."""

    memorized: bool
    accuracy: float
    loss: float
    epochs: int
    stop_reason: str
    seconds: float
