"""The question and the answer everything else passes around. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from training.protocol import Label, Protocol
from training.spec import TASK, Architecture


@dataclass(frozen=True)
class Probe:
    """One question: does this architecture memorize ``n`` mappings under this protocol?

    Another ``attempt`` is another initialisation, order and dropout on the same mappings.
    """

    architecture: Architecture
    protocol: Protocol
    seed: int
    repeat: int
    n: int
    attempt: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError where architecture and protocol are of different tasks."""
        for name in TASK:
            if getattr(self.architecture, name) != getattr(self.protocol, name):
                raise ValueError(f"architecture and protocol have another {name} each")

    @property
    def label(self) -> str:
        """What the protocol column of the CSVs says, but for the engine's end of it."""
        return str(Label(self.protocol, self.architecture.spec.paper, self.attempt))


@dataclass(frozen=True)
class Outcome:
    """The answer; ``loss`` in nats per token and ``accuracy`` belong to the restored weights."""

    memorized: bool
    accuracy: float
    loss: float
    epochs: int
    stop_reason: str
    seconds: float
