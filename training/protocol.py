"""The training protocol: every setting that decides the outcome of a probe, as one value.

Beside it the protocols that have a name, and what the protocol column of the CSVs says of a row.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any

from training.errors import UserError


def _setting(default: Any, help_text: str, choices: tuple[str, ...] = ()) -> Any:
    return field(default=default, metadata={"help": help_text, "choices": choices})


@dataclass(frozen=True)
class Protocol:
    """Settings of one training run; the defaults are the published ones of the MLP.

    A model's published protocol is its spec's ``paper`` (training/spec.py). Raises
    :class:`UserError` when a value is out of its range.
    """

    vocab_size: int = _setting(10, "number of distinct tokens V")
    seq_len: int = _setting(10, "tokens per sequence T")
    learning_rate: float = _setting(1e-2, "AdamW learning rate at the first step")
    weight_decay: float = _setting(0.01, "AdamW weight decay, not on biases and LayerNorm")
    beta1: float = _setting(0.9, "AdamW decay rate of the gradient average")
    beta2: float = _setting(0.999, "AdamW decay rate of the squared-gradient average")
    epsilon: float = _setting(1e-8, "AdamW denominator offset")
    batch_size: int = _setting(32, "sequences per optimiser step")
    max_epochs: int = _setting(500, "epochs at most; also the horizon of the schedule")
    patience: int = _setting(
        3, "evaluations in a row without improvement before the plateau stop; 0: none"
    )
    min_delta: float = _setting(1e-4, "nats the loss must fall below its best to improve")
    grad_clip: float = _setting(1.0, "largest global L2 norm of the gradient; 0 switches it off")
    dropout: float = _setting(0.0, "probability of zeroing an activation in training")
    schedule: str = _setting(
        "linear", "how the learning rate decays after the warm-up", ("linear", "cosine", "constant")
    )
    warmup_epochs: int = _setting(0, "epochs over which the learning rate rises from 0; 0: none")
    max_steps: int = _setting(
        0,
        "optimiser steps at most; where it is below --max-epochs, the schedule's horizon; 0: none",
    )
    evaluation_interval: int = _setting(
        1, "epochs between evaluations, which decide when to stop; the last epoch has one too"
    )
    init: str = _setting(
        "default",
        "initial weights: the model's own, or orthogonal matrices times sqrt(2) and zero biases",
        ("default", "orthogonal"),
    )
    verdict: str = _setting(
        "lowest_loss",
        "which weights must be perfect: those of the lowest loss, or of the first perfect epoch",
        ("lowest_loss", "first_perfect"),
    )

    def __post_init__(self) -> None:
        """Refuse values no run could use; make equal settings look equal in :meth:`label`."""
        for f in fields(self):
            kind: Any = type(f.default)
            object.__setattr__(self, f.name, kind(getattr(self, f.name)))
        self._require(self.vocab_size >= 2, "vocab_size", "at least 2")
        self._require(self.seq_len >= 1, "seq_len", "at least 1")
        self._require(0 < self.learning_rate <= 1e10, "learning_rate", "above 0 and at most 1e10")
        self._require(0 <= self.weight_decay < float("inf"), "weight_decay", "0 or more")
        self._require(0 <= self.beta1 < 1, "beta1", "in [0, 1)")
        self._require(0 <= self.beta2 < 1, "beta2", "in [0, 1)")
        self._require(0 < self.epsilon < float("inf"), "epsilon", "above 0")
        largest = "from 1 to 1000000"
        self._require(1 <= self.batch_size <= 1_000_000, "batch_size", largest)
        self._require(self.max_epochs >= 1, "max_epochs", "at least 1")
        self._require(self.patience >= 0, "patience", "0 or more")
        self._require(0 <= self.min_delta < float("inf"), "min_delta", "0 or more")
        self._require(0 <= self.grad_clip < float("inf"), "grad_clip", "0 or more")
        self._require(0 <= self.dropout < 1, "dropout", "in [0, 1)")
        self._require(self.max_steps >= 0, "max_steps", "0 or more")
        self._require(self.evaluation_interval >= 1, "evaluation_interval", "at least 1")
        warmup = "0 or more and below --max-epochs"
        self._require(0 <= self.warmup_epochs < self.max_epochs, "warmup_epochs", warmup)
        for f in fields(self):
            if choices := f.metadata["choices"]:
                one_of = "one of " + ", ".join(choices)
                self._require(getattr(self, f.name) in choices, f.name, one_of)

    def _require(self, holds: bool, name: str, expected: str) -> None:
        if not holds:
            flag = "--" + name.replace("_", "-")
            raise UserError(f"{flag} must be {expected}, got {getattr(self, name)}")

    def label(self, published: Protocol) -> str:
        """Identity in the CSVs: ``paper``, then ``name=value`` where it differs from ``published``.

        A setting that is added later keeps the labels of all that do not change it.
        """
        changed = [
            f"{f.name}={getattr(self, f.name)}"
            for f in fields(self)
            if getattr(self, f.name) != getattr(published, f.name)
        ]
        return " ".join(["paper", *changed])


# What a preset changes of a model's published protocol. A new one is an entry here.
PRESETS: Mapping[str, Mapping[str, int | float | str]] = MappingProxyType(
    {
        "paper": {},
        # Trains until every sequence is memorized or 5,000 epochs are over: nothing regularises,
        # nothing stops early, and the first perfect epoch is the verdict.
        "converged": {
            "patience": 0,
            "dropout": 0.0,
            "weight_decay": 0.0,
            "schedule": "cosine",
            "warmup_epochs": 50,
            "max_epochs": 5000,
            "verdict": "first_perfect",
        },
    }
)


@dataclass(frozen=True)
class Label:
    """What the protocol column says of a row; ``str(label)`` is its text.

    ``paper`` in it stands for ``published``. ``max_size`` is the user's bound of a search, in
    sequences. ``engine``, ``device`` and ``machine`` are empty where the bits are those of most
    rows.
    """

    protocol: Protocol
    published: Protocol
    attempt: int = 0
    engine: str = ""
    device: str = ""
    machine: str = ""
    max_size: int | None = None

    def __str__(self) -> str:
        """Return the text: the protocol's, then a word for each of the rest that there is."""
        rest = {name: getattr(self, name) for name in LABEL_WORDS}
        words = [f"{name}={value}" for name, value in rest.items() if value]
        return " ".join([self.protocol.label(self.published), *words])


# The words of a label after its settings, in their order.
LABEL_WORDS: Mapping[str, type] = MappingProxyType(
    {"attempt": int, "engine": str, "device": str, "machine": str, "max_size": int}
)


@functools.cache
def parse_label(text: str, published: Protocol) -> Label:
    """Return what a text of the protocol column says, where ``paper`` stands for ``published``.

    The inverse of ``str(label)``. What names a function of the user's stays a name: nothing is
    imported. Raises ValueError for a text that no label has.
    """
    first, *words = text.split(" ")
    settings = {f.name: type(f.default) for f in fields(published)}
    kinds = {**settings, **LABEL_WORDS}
    texts = dict(word.partition("=")[::2] for word in words)
    values: dict[str, Any] = {}
    try:
        # As they are written: each word once, in order, and no number in another form.
        if first != "paper" or [*texts] != [n for n in kinds if n in texts] or "" in texts.values():
            raise ValueError
        values = {name: kinds[name](value) for name, value in texts.items()}
        if len(words) != len(texts) or any(str(values[n]) != texts[n] for n in texts):
            raise ValueError
        changed = {name: value for name, value in values.items() if name in settings}
        rest = {name: value for name, value in values.items() if name in LABEL_WORDS}
        return Label(replace(published, **changed), published, **rest)
    except (ValueError, UserError) as error:
        reason = f" ({error})" if isinstance(error, UserError) else ""
        raise ValueError(f"{text!r} is not a protocol{reason}") from None
