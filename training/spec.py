"""All that the instrument knows of a model: one value of :class:`ModelSpec`, in its own folder.

A new model is a folder with a module, an :class:`Architecture` and a ``SPEC``, and one line in
threshold_search/models.py. CONTRIBUTING.md has the recipe. Imports no torch, and no spec may at
import time: counting parameters and reading ``--help`` should not wait for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Self, get_type_hints

from dataset.encoding import Encoding, sequence_to_sequence
from dataset.task import Task
from training.errors import UserError
from training.protocol import PRESETS, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from dataset.synthetic_generator import Mappings
    from training.module import SequenceModel

    Drop = Callable[[int, Tensor], Tensor]  # (dropout site, x) -> x with the site's mask applied

# What an architecture may have of its task: filled from it, and no size of the model's own.
TASK = ("vocab_size", "seq_len", "label_vocab_size", "label_len")
FlagValue = int | str | bool | None
# What the CSVs and tables call their other columns.
FIXED_COLUMNS = {
    *("model", "protocol", "bits", "budget", "num_parameters", "repeat", "seed", "n", "memorized"),
    *("task", *TASK),
    *("accuracy", "loss", "epochs", "stop_reason", "seconds", "threshold", "first_failure"),
    *("max_epoch_reached", "probes", "capped"),
}


class Architecture(ABC):
    """A model's shape. Subclasses are frozen dataclasses of whole numbers and strings.

    Every field but those of the task (TASK) becomes a CSV column. ``__post_init__`` raises
    :class:`~training.errors.UserError` for a shape that does not exist.
    """

    spec: ClassVar[ModelSpec]  # set by the ModelSpec that is made of the class

    @property
    @abstractmethod
    def num_parameters(self) -> int:
        """Number of trained parameters."""

    @property
    def name(self) -> str:
        """Short name for tables and progress bars."""
        columns = self.columns()
        sizes = " ".join(f"{name}={columns[name]}" for name in self.spec.sizes)
        return sizes or f"{self.num_parameters} parameters"

    @property
    def native_form(self) -> NativeForm | None:
        """Its form in the compiled engine, if that knows it."""
        form = self.spec.native
        return form if form and form.supports(self) else None

    def columns(self) -> dict[str, int | str]:
        """Return the CSV columns that identify the architecture."""
        return {name: getattr(self, name) for name in self.spec.columns}

    def for_task(self, task: Task) -> Self:
        """Return the architecture with the shape of ``task``, which replaces the default one.

        Raises :class:`~training.errors.UserError` for an architecture that was made for another
        task, and for a model that cannot answer this one.
        """
        self.spec.require(task)
        own = {name: getattr(self, name) for name in self.spec.task_fields}
        wanted = self.spec.shape_of(task)
        if own == wanted:
            return self
        sizes = {name: getattr(self, name) for name in self.spec.sizes}
        with contextlib.suppress(TypeError):  # where the task's fields have no defaults
            if self == type(self)(**sizes):
                return type(self)(**sizes, **wanted)
        name, value = next((n, v) for n, v in own.items() if v != wanted[n])
        raise UserError(
            f"{self.spec.name} {self.name} has {name}={value}, the protocol's task "
            f"{wanted[name]}: give a protocol with the same"
        )


@dataclass(frozen=True)
class Flag:
    """A command-line flag of one model, such as ``--layers``; ``name`` is ``layers``.

    Its value is a whole number from ``smallest`` on, or one of ``choices``, or with ``switch``
    whether it was given. ``default`` is the training script's; a search takes what ``grid`` says,
    and where that says nothing the default too. ``searched`` tells the search's help of it.
    """

    name: str
    help: str
    default: FlagValue = None
    smallest: int = 1
    metavar: str = "N"
    choices: tuple[str, ...] = ()
    switch: bool = False
    searched: str = "the model's own"


@dataclass(frozen=True)
class NativeForm:
    """The model in the compiled engine: a C function NAME_create and its struct of int64 fields.

    ``shape`` are attributes of the architecture in the order of the struct (engines/native).
    ``supports(architecture)`` says whether the engine knows this one, with its options.
    """

    name: str
    shape: tuple[str, ...]
    supports: Callable[[Any], bool] = lambda architecture: True


@dataclass(frozen=True)
class StackedForm:
    """A forward pass for many models at once, written by hand to be faster than vmap's.

    ``load`` returns a function (architecture, parameters, inputs (M, B, S), drop) -> logits
    (M, B, positions, label vocabulary). Parameters come by the module's own names, (M, ...) each.
    On a CPU without the compiled engine, stacking five models is faster than the reference loop up
    to ``faster_up_to`` parameters.
    """

    load: Callable[[], Callable[[Any, dict[str, Tensor], Tensor, Drop], Tensor]]
    faster_up_to: int = 0


Report = Mapping[str, float | list[float]]


@dataclass(frozen=True, eq=False)
class ModelSpec:
    """One model.

    ``name`` stands in the CSVs and begins their file names. ``paper`` is the published protocol.
    ``solve(budget, vocab_size=, seq_len=, **flags)`` returns the architecture that a parameter
    budget means (None if no budget was given), with one value per flag; it is given those of TASK
    that the architecture has as fields, and raises UserError where there is none.
    ``grid(budget)`` maps flags to the values that a search tries where the user names none; for a
    budget in ``published_budgets``, or None, those are the published ones.
    ``build(architecture, dropout)`` returns the module (training/module.py), with any weights.
    ``label_note(budget, architecture)`` returns a line for the user where a budget is not the size.
    ``is_linear(architecture)`` says whether the module is one ``nn.Linear`` on the one-hot input,
    T*V features to all logits: then a linear program tells what it can memorize.
    ``report(module, mappings)`` returns by name what a training script shows besides of a module
    with its trained weights, on the CPU: numbers, or one per position.
    ``vmap`` says whether torch.vmap can run the module (engines/forward.py); one without, if it has
    no ``stacked`` form either, trains by the reference loop on CUDA too.
    ``reads_vectors`` is for a model of tasks whose inputs are real numbers, (B, seq_len).
    """

    name: str
    architecture: type[Architecture]
    solve: Callable[..., Architecture]
    build: Callable[[Any, float], SequenceModel]
    paper: Protocol = field(default_factory=Protocol)
    flags: tuple[Flag, ...] = ()
    budget_help: str = "parameter budget"
    grid: Callable[[int | None], Mapping[str, Sequence[FlagValue]]] = lambda budget: {}
    published_budgets: tuple[int, ...] = ()
    default_sequences: int = 64
    encode: Encoding = sequence_to_sequence
    label_note: Callable[[int, Any], str | None] = lambda budget, architecture: None
    vmap: bool = True
    stacked: StackedForm | None = None
    native: NativeForm | None = None
    is_linear: Callable[[Any], bool] = lambda architecture: False
    report: Callable[[SequenceModel, Mappings], Report] | None = None
    reads_vectors: bool = False

    def __post_init__(self) -> None:
        """Let the architectures know their spec.

        Raises ValueError if they have one already, and for a name or a size that no CSV could hold.
        """
        if "spec" in vars(self.architecture):
            raise ValueError(f"{self.architecture.__name__} belongs to another spec already")
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", self.name):
            raise ValueError(f"{self.name!r} cannot begin a file name: use a-z, 0-9, - and _")
        for size, kind in self.sizes.items():
            if kind not in (int, str):
                raise ValueError(f"{size} of {self.architecture.__name__} must be an int or a str")
            if size in FIXED_COLUMNS:
                raise ValueError(f"{size} of {self.architecture.__name__}: CSVs have such a column")
        self.architecture.spec = self

    @functools.cached_property
    def sizes(self) -> dict[str, type]:
        """The architecture's fields but those of the task, each with its type: int or str."""
        types = get_type_hints(self.architecture)
        return {name: types[name] for name in self._fields if name not in TASK}

    @functools.cached_property
    def task_fields(self) -> tuple[str, ...]:
        """Those of TASK that the architecture has."""
        return tuple(name for name in self._fields if name in TASK)

    @property
    def _fields(self) -> list[str]:
        assert dataclasses.is_dataclass(self.architecture)
        return [field.name for field in dataclasses.fields(self.architecture)]

    def shape_of(self, task: Task) -> dict[str, int]:
        """Return what the architecture has as fields of the shape of ``task``."""
        return {name: getattr(task, name) for name in self.task_fields}

    def require(self, task: Task) -> None:
        """Raise :class:`UserError` for a task that the model cannot answer."""
        reason = ""
        if task.has_vectors != self.reads_vectors:
            kinds = ("tokens", "real numbers")
            reason = f"the task has {kinds[task.has_vectors]}, it reads {kinds[self.reads_vectors]}"
        elif (
            "label_vocab_size" not in self.task_fields and task.label_vocab_size != task.vocab_size
        ):
            reason = "labels have another vocabulary than inputs"
        elif "label_len" not in self.task_fields and (
            task.label_len > task.seq_len
            or (task.label_len < task.seq_len and self.encode is not sequence_to_sequence)
        ):
            reason = f"labels have {task.label_len} tokens, inputs {task.seq_len}"
        if reason:
            raise UserError(f"the model {self.name} cannot answer this --task: {reason}")

    def solve_for(self, task: Task, budget: int | None, **flags: FlagValue) -> Architecture:
        """Return what ``solve`` does, in the shape of ``task``; raise as :meth:`require` too."""
        self.require(task)
        return self.solve(budget, **self.shape_of(task), **flags)

    @property
    def columns(self) -> dict[str, type]:
        """The CSV columns that identify an architecture, likewise."""
        return {"num_parameters": int, **self.sizes}

    def protocol(self, preset: str = "paper", **changes: Any) -> Protocol:
        """Return the published protocol as a preset changes it, then with ``changes``.

        Raises ValueError for a preset that is not in training/protocol.py.
        """
        if preset not in PRESETS:
            raise ValueError(f"no preset {preset!r}: there are {', '.join(PRESETS)}")
        return self.paper.changed(**{**PRESETS[preset], **changes})
