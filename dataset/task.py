"""What a network is trained on: a task is a value that makes n random examples.

    bijection    n distinct input sequences, each with a distinct label sequence of its own
    facts        n distinct keys, each with a value of one token, drawn anew for each

A task of one's own is a subclass of :class:`Task`. CONTRIBUTING.md has the recipe. NumPy alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from dataset.random_stream import RandomStream
from dataset.synthetic_generator import (
    Mappings,
    distinct_sequences,
    generate_mappings,
    max_mappings,
    number_of_sequences,
    require_size,
)


@dataclass(frozen=True)
class Task(ABC):
    """Examples of ``seq_len`` tokens out of ``vocab_size``, each with a label.

    With ``has_vectors`` an input is ``seq_len`` real numbers instead, float32. Raises ValueError
    for sizes that no example has.
    """

    vocab_size: int = 10
    seq_len: int = 10

    has_vectors: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse sizes that no example has; a task of one's own may refuse more."""
        if self.vocab_size < 1 or self.seq_len < 1:
            raise ValueError(f"no task has {self.vocab_size} tokens and length {self.seq_len}")

    @property
    def label_vocab_size(self) -> int:
        """Number of distinct tokens in labels."""
        return self.vocab_size

    @property
    def label_len(self) -> int:
        """Tokens per label."""
        return self.seq_len

    @property
    def bits_per_label(self) -> float:
        """Bits of a label that is uniform over all there are."""
        return self.label_len * math.log2(self.label_vocab_size)

    @property
    def largest(self) -> int:
        """The most examples that there are; by default as many as an int64 counts."""
        return 2**63 - 1

    @abstractmethod
    def generate(self, n: int, seed: int | np.random.SeedSequence) -> Mappings:
        """Return ``n`` examples: inputs (n, seq_len), labels (n, label_len) of int64.

        They depend on ``n`` and ``seed`` alone. Raises ValueError for an ``n`` that is not from 1
        to :attr:`largest`, MemoryError when they do not fit.
        """


@dataclass(frozen=True)
class Bijection(Task):
    """The published task: 2n distinct sequences, paired at random, uniform over all choices."""

    @property
    def largest(self) -> int:
        """See :class:`Task`. Each example uses up two of the V**T sequences."""
        return max_mappings(self.vocab_size, self.seq_len)

    def generate(self, n: int, seed: int | np.random.SeedSequence) -> Mappings:
        """See :class:`Task`. A smaller n has the first examples of a larger one."""
        return generate_mappings(n, self.vocab_size, self.seq_len, seed)


@dataclass(frozen=True)
class Facts(Task):
    """n distinct keys; the value of each is one token, independent and uniform: they repeat."""

    @property
    def label_len(self) -> int:
        """See :class:`Task`."""
        return 1

    @property
    def largest(self) -> int:
        """See :class:`Task`."""
        return number_of_sequences(self.vocab_size, self.seq_len)

    def generate(self, n: int, seed: int | np.random.SeedSequence) -> Mappings:
        """See :class:`Task`. A smaller n has the first examples of a larger one."""
        require_size(n, self.vocab_size, self.seq_len, self.largest)
        own = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
        of_values = np.random.SeedSequence(own.entropy, spawn_key=(*own.spawn_key, 0))
        keys = distinct_sequences(n, self.vocab_size, self.seq_len, own)
        values = RandomStream(of_values).integers(self.vocab_size, n).reshape(n, 1)
        return Mappings(keys.astype(np.int64), values.astype(np.int64))


TASKS: Mapping[str, type[Task]] = MappingProxyType({"bijection": Bijection, "facts": Facts})
