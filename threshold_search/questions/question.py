"""What may be asked of a network, and where a question stands: all that the driver knows of it.

A question wants its probes in rounds. The next round is told when all outcomes of the last one are
in, so what is asked follows from outcomes alone, never from workers or clocks. A new question is a
file in this folder, and a script. Imports no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from training.probe import Kind, Outcome, Probe
from training.protocol import Protocol
from training.spec import Architecture

Row = dict[str, Any]  # of MODEL_results.csv
Configuration = tuple[Architecture, Protocol, int]  # ..., budget in parameters


@dataclass(frozen=True)
class Question(ABC):
    """What is asked of one configuration; equal questions are one.

    ``budget`` is the number of parameters that was asked for, which may be a label. All its probes
    have this architecture, protocol, seed and attempt. Raises as :class:`Probe` does.
    """

    architecture: Architecture
    protocol: Protocol
    budget: int
    seed: int = 0
    attempt: int = 0

    noun: ClassVar[str]  # several of them, for the progress bar

    def __post_init__(self) -> None:
        """Take the architecture as the probes have it."""
        object.__setattr__(self, "architecture", self.probe(1).architecture)

    @property
    def kind(self) -> Kind:
        """What its probes have in common."""
        return self.architecture, self.protocol

    @property
    def configuration(self) -> Configuration:
        """What several questions of a study may have in common."""
        return self.architecture, self.protocol, self.budget

    @property
    def largest(self) -> int:
        """The most sequences that its task has."""
        return self.protocol.make_task().largest

    @property
    def name(self) -> str:
        """Model and sizes, such as ``mlp 49x1``."""
        return f"{self.architecture.spec.name} {self.architecture.name}"

    @property
    def part(self) -> str:
        """Which of its configuration it is, such as ``#3``; empty where that is all."""
        return ""

    def probe(self, n: int, repeat: int = 0) -> Probe:
        """Return its probe of ``n`` sequences in one ``repeat``."""
        return Probe(self.architecture, self.protocol, self.seed, repeat, n, self.attempt)

    @abstractmethod
    def start(self) -> State:
        """Return the question before its first round."""


class State(ABC):
    """A question in progress.

    ``taken`` has its probes so far with their outcomes, in their order; ``failure`` says why it
    cannot go on, if so.
    """

    def __init__(self, question: Question) -> None:
        self.question = question
        self.failure: str | None = None
        self.taken: list[tuple[Probe, Outcome]] = []

    @abstractmethod
    def wanted(self) -> Sequence[Probe]:
        """Return the round that it waits for, in the order to train it in; none at its end.

        The same one until :meth:`take`. It is asked often, so it makes no probes each time.
        """

    def take(self, outcomes: Sequence[Outcome]) -> None:
        """Take the outcomes of the whole round, in its order."""
        self.taken += zip(self.wanted(), outcomes, strict=True)

    @property
    @abstractmethod
    def remaining(self) -> float:
        """How many probes are still to come, as far as that can be guessed; none at its end.

        Of one architecture and protocol the question with the most goes first.
        """

    @property
    @abstractmethod
    def where(self) -> str:
        """What is known so far and asked now, for the progress bar, while it waits."""

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for outcomes."""
        return self.failure is None and bool(self.wanted())

    @property
    def fraction(self) -> float:
        """Share of its probes that is done, for the progress bar."""
        return len(self.taken) / (len(self.taken) + self.remaining) if self.is_waiting else 1.0

    def row(self, label: str) -> Row | None:
        """Return its row of results at its end, if it has one.

        ``label`` is what the protocol column says of its probes.
        """
        return None
