"""The training protocol: every setting that decides the outcome of a probe, as one value."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from dataset.task import TASKS, Task
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
    task: str = _setting(
        "bijection",
        "what is memorized: random label sequences, or one random token per key",
        tuple(TASKS),
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

    def make_task(self) -> Task:
        """Return the task, in the sizes of this protocol."""
        return TASKS[self.task](self.vocab_size, self.seq_len)

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
