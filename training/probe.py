"""The question and the answer everything else passes around. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from training.protocol import Protocol
from training.spec import TASK, Architecture

Kind = tuple[Architecture, Protocol]  # what probes that train together have in common


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
    def kind(self) -> Kind:
        """Its architecture and protocol: an engine is chosen for these."""
        return self.architecture, self.protocol

    @property
    def label(self) -> str:
        """What the protocol column of the CSVs says, but for the engine's end of it."""
        label = self.protocol.label(self.architecture.spec.paper)
        return f"{label} attempt={self.attempt}" if self.attempt else label


@dataclass(frozen=True)
class Outcome:
    """The answer; ``loss`` in nats per token and ``accuracy`` belong to the restored weights."""

    memorized: bool
    accuracy: float
    loss: float
    epochs: int
    stop_reason: str
    seconds: float
