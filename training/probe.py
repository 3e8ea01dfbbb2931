"""The question and the answer everything else passes around. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from training.protocol import Label, Protocol
from training.spec import Architecture

# Numbers the arithmetic behind an outcome: the random streams of (seed, repeat, n) and the rounding
# of the compiled engine. Equal probes of one version have the same outcome to the last bit; those
# of two versions are different draws, which one log may hold side by side but nothing may reuse or
# average together. Whoever changes what a probe computes, in any bit, raises the number and makes
# all results anew. 1: the bits depended on the machine. 2: they are the same on every machine.
BITS_VERSION = 2

# What probes that can train together have in common.
Kind = tuple[Architecture, Protocol]


@dataclass(frozen=True)
class Probe:
    """One question: does this architecture memorize ``n`` examples under this protocol?

    Another ``attempt`` is another initialisation, order and dropout on the same examples.
    """

    architecture: Architecture
    protocol: Protocol
    seed: int
    repeat: int
    n: int
    attempt: int = 0

    def __post_init__(self) -> None:
        """Give the architecture the shape of the protocol's task; raise UserError if it cannot."""
        own = self.architecture.for_task(self.protocol.make_task())
        object.__setattr__(self, "architecture", own)

    @property
    def kind(self) -> Kind:
        """Its architecture and protocol: an engine is chosen for these."""
        return self.architecture, self.protocol

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
