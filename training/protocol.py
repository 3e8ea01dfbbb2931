"""The training protocol: every setting that decides the outcome of a probe, as one value.

Beside it the protocols that have a name, and what the protocol column of the CSVs says of a row.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, TypeVar

from dataset.task import TASKS, Task
from training.errors import UserError
from training.losses import LOSSES, Loss
from training.optimizers import OPTIMIZERS, Optimizer
from training.schedule import SCHEDULES

# The smallest normal number of each dtype, named as torch names it.
PRECISIONS = {"float32": 2.0**-126, "float64": 2.0**-1022}
# By field, the tables whose entries name, in ``settings``, fields that they alone read.
TABLES: Mapping[str, Mapping[str, Loss | Optimizer]] = {"loss": LOSSES, "optimizer": OPTIMIZERS}

Entry = TypeVar("Entry")


def _setting(
    default: Any, help_text: str, choices: Iterable[str] = (), is_open: bool = False
) -> Any:
    """A field; one that ``is_open`` takes ``package.module:NAME`` besides its choices."""
    metadata = {"help": help_text, "choices": tuple(choices), "is_open": is_open}
    return field(default=default, metadata=metadata)


def readers(setting: str) -> tuple[str, list[str]] | None:
    """Return the field whose choice decides if ``setting`` is read, and the choices that read it.

    None for a setting that is always read.
    """
    for chooser, table in TABLES.items():
        if names := [name for name, entry in table.items() if setting in entry.settings]:
            return chooser, names
    return None


def _is_read(setting: str, values: Mapping[str, Any]) -> bool:
    """Return whether a protocol of these values reads ``setting``, as far as the tables know."""
    chooser, names = readers(setting) or ("", [])
    chosen = values.get(chooser)
    return chosen in names or chosen not in TABLES.get(chooser, {})


def resolve(table: Mapping[str, Entry], name: str, what: str, kind: type[Entry]) -> Entry:
    """Return the entry ``name`` of ``table``, or the ``kind`` that ``package.module:NAME`` names.

    Such a module is looked for where Python looks, and in the current folder. ``what`` is the flag
    without its dashes. Raises :class:`UserError` if there is none.
    """
    if name in table:
        return table[name]
    module_name, colon, attribute = name.partition(":")
    if not colon or not module_name or not attribute:
        raise UserError(f"no {what} {name!r}: give {', '.join(table)} or package.module:NAME")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # worker processes start with the same path
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # whatever is wrong in the user's file
        raise UserError(f"--{what} {name}: {type(error).__name__}: {error}") from None
    entry = getattr(module, attribute, None)
    if not isinstance(entry, kind):
        raise UserError(f"--{what} {name}: {module_name} has no {kind.__name__} {attribute}")
    return entry


def _is_name(text: str) -> bool:
    """Return whether ``text`` is a ``package.module:NAME``, and so nothing that breaks a label."""
    module, _, attribute = text.partition(":")
    return all(part.isidentifier() for part in [*module.split("."), attribute])


@dataclass(frozen=True)
class Protocol:
    """Settings of one training run; the defaults are the published ones of the MLP.

    A model's published protocol is its spec's ``paper`` (training/spec.py). Raises
    :class:`UserError` when a value is out of its range.
    """

    vocab_size: int = _setting(10, "number of distinct tokens V")
    seq_len: int = _setting(10, "tokens per sequence T")
    learning_rate: float = _setting(1e-2, "learning rate before it decays")
    weight_decay: float = _setting(0.01, "weight decay, not on biases and LayerNorm")
    beta1: float = _setting(0.9, "Adam's decay rate of the gradient average")
    beta2: float = _setting(0.999, "Adam's decay rate of the squared-gradient average")
    epsilon: float = _setting(1e-8, "Adam's denominator offset")
    batch_size: int = _setting(
        32,
        "sequences per optimiser step; with dropout, a batch larger than the data still costs the "
        "random numbers of a whole one",
    )
    max_epochs: int = _setting(500, "epochs at most; also the horizon of the schedule")
    patience: int = _setting(
        3, "evaluations in a row without improvement before the plateau stop; 0: none"
    )
    min_delta: float = _setting(1e-4, "nats the loss must fall below its best to improve")
    grad_clip: float = _setting(1.0, "largest global L2 norm of the gradient; 0 switches it off")
    dropout: float = _setting(0.0, "probability of zeroing an activation in training")
    schedule: str = _setting("linear", "how the learning rate decays after the warm-up", SCHEDULES)
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
        TASKS,
        is_open=True,
    )
    loss: str = _setting(
        "cross_entropy",
        "what is minimised (what is shown as loss, and decides when to stop, is cross-entropy)",
        LOSSES,
        is_open=True,
    )
    optimizer: str = _setting("adamw", "how the weights are updated", OPTIMIZERS, is_open=True)
    momentum: float = _setting(0.9, "decay rate of the average of gradients")
    soap_interval: int = _setting(10, "steps between updates of the eigenbases")
    dtype: str = _setting(
        "float32",
        "numbers of weights and training; the first weights are rounded to float32 in any case",
        PRECISIONS,
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
        # The compiled engine takes what is smaller for 0.
        smallest = PRECISIONS.get(self.dtype, 0.0)
        normal = f"at least {smallest:.3g}, the smallest normal number of {self.dtype}"
        self._require(smallest <= self.epsilon < float("inf"), "epsilon", normal)
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
        self._require(0 <= self.momentum < 1, "momentum", "in [0, 1)")
        self._require(self.soap_interval >= 1, "soap_interval", "at least 1")
        for f in fields(self):
            if choices := f.metadata["choices"]:
                value, one_of = getattr(self, f.name), "one of " + ", ".join(choices)
                is_name = f.metadata["is_open"] and _is_name(value)
                one_of += " or package.module:NAME" if f.metadata["is_open"] else ""
                self._require(value in choices or is_name, f.name, one_of)
            if getattr(self, f.name) != f.default and not _is_read(f.name, vars(self)):
                chooser, names = readers(f.name) or ("", [])
                raise UserError(
                    f"--{f.name.replace('_', '-')} is a setting of --{chooser} "
                    f"{', '.join(names)}, not of {getattr(self, chooser)}"
                )

    def changed(self, **changes: Any) -> Protocol:
        """Return the protocol with ``changes``.

        Where they choose another loss or optimiser, what that does not read gets its default.
        """
        values = {**vars(self), **changes}
        unread = {f.name: f.default for f in fields(self) if not _is_read(f.name, values)}
        return replace(self, **{**unread, **changes})

    def find_loss(self) -> Loss:
        """Return the loss that is minimised; raise :class:`UserError` if there is none."""
        return resolve(LOSSES, self.loss, "loss", Loss)

    def find_optimizer(self) -> Optimizer:
        """Return the optimiser; raise :class:`UserError` if there is none."""
        return resolve(OPTIMIZERS, self.optimizer, "optimizer", Optimizer)

    def make_task(self) -> Task:
        """Return the task, in the sizes of this protocol; raise :class:`UserError` without it."""
        kind = resolve(TASKS, self.task, "task", type)
        if not issubclass(kind, Task):
            raise UserError(f"--task {self.task} is no Task (dataset/task.py)")
        try:
            return kind(self.vocab_size, self.seq_len)
        except (TypeError, ValueError) as error:  # of sizes that it does not have
            raise UserError(f"--task {self.task}: {error}") from None

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
