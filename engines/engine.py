"""The engines that train probes.

The reference engine is plain torch (reference.py), with the bits of the flat loop in
training/loop.py. The fast one is the compiled engine on a CPU (engines/native) and stacked tensors
on CUDA (stacked.py). Where the compiled engine is missing, or does not know a model or a setting,
it is whichever of the other two is faster for that model. An engine says by architecture and
protocol what it cannot train; choice.py chooses. Not trained but solved, for those who ask, are
models that are linear (linear_program.py).

Imports no torch: which engine trains a probe, and so its identity, is known without.
"""

from __future__ import annotations

import contextlib
import functools
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from engines.memory import within_memory
from engines.native.build import machine
from training.errors import OutOfMemory, UserError
from training.probe import Outcome, Probe
from training.protocol import Protocol
from training.spec import Architecture

if TYPE_CHECKING:
    from torch import Tensor

    from engines.native.stack import NativeStack
    from engines.reference import ReferenceStack
    from engines.stacked import StackedModels
    from training.loop import EpochRecord
    from training.session import Stack
    from training.start import ProbeStart

# Places for models in every stack on CUDA. Fixed, because the bits of a product depend on how many
# there are; so a smaller group there saves the memory of its data alone.
CUDA_LANES = 16
# What the compiled engine knows of settings that choose an implementation.
NATIVE_SETTINGS = {"loss": "cross_entropy", "optimizer": "adamw", "dtype": "float32"}
Weights = dict[str, "Tensor"]
OnEpoch = Callable[["EpochRecord"], None]
# How torch's allocators begin what they say when memory is short; they raise RuntimeError.
SHORT_OF_MEMORY = (
    "[enforce fail at alloc_cpu",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
)


@dataclass(frozen=True)
class Engine(ABC):
    """Trains probes on one device. A value that can be pickled; equal engines do the same."""

    device: str = "cpu"

    name: ClassVar[str]

    @property
    @abstractmethod
    def label(self) -> str:
        """The end of the protocol column: empty where the bits are those of most rows.

        Probes of another label round differently and are not mixed with those.
        """

    @property
    def largest_job(self) -> int:
        """How many probes of one architecture and protocol it trains together at most."""
        return 1

    @classmethod
    def why_not(cls, architecture: Architecture, protocol: Protocol) -> str | None:
        """Return why it cannot train this, such as "has no --loss margin", or None if it can."""
        return None

    def check(self, probe: Probe) -> None:
        """Raise :class:`UserError` for settings of a training where there is none."""
        return None

    def train(
        self, probes: Sequence[Probe], on_epoch: OnEpoch = lambda record: None
    ) -> list[tuple[Outcome, Callable[[], Weights]]]:
        """Train probes of one architecture and protocol; ``on_epoch`` hears of the first one.

        Returns each one's outcome and a function that returns its weights, those of the verdict.
        Probes that do not fit into memory together train in smaller groups. Raises
        :class:`OutOfMemory` where one alone does not, :class:`UserError` as :meth:`check` does.
        """
        for probe in probes:
            self.check(probe)
        try:
            with contextlib.ExitStack() as limits:
                if self.device == "cpu":  # the drivers of devices reserve as they like
                    parameters = sum(probe.architecture.num_parameters for probe in probes)
                    limits.enter_context(within_memory(parameters))
                return self._train(probes, on_epoch)
        except (MemoryError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and not str(error).startswith(SHORT_OF_MEMORY):
                raise
        # Out here, because the error holds the frames, and with them all that was allocated.
        if len(probes) > 1:
            half = len(probes) // 2
            return self.train(probes[:half], on_epoch) + self.train(probes[half:])
        architecture = probes[0].architecture
        raise OutOfMemory(
            f"not enough memory to train {architecture.spec.name} {architecture.name} "
            f"on {probes[0].n} sequences"
        )

    @abstractmethod
    def _train(
        self, probes: Sequence[Probe], on_epoch: OnEpoch
    ) -> list[tuple[Outcome, Callable[[], Weights]]]:
        """Train what fits into memory; see :meth:`train`."""


class StackEngine(Engine):
    """Trains by gradients, in the epochs of the one policy (training/session.py)."""

    @abstractmethod
    def start(self, starts: Sequence[ProbeStart]) -> Stack:
        """Return the models before their first step."""

    def _train(
        self, probes: Sequence[Probe], on_epoch: OnEpoch
    ) -> list[tuple[Outcome, Callable[[], Weights]]]:
        from training.session import train_stack
        from training.start import start_probe

        def on_stack_epoch(index: int, record: EpochRecord) -> None:
            if index == 0:
                on_epoch(record)

        begin = time.perf_counter()
        starts = [start_probe(probe) for probe in probes]
        stack = self.start(starts)
        share = (time.perf_counter() - begin) / len(probes)
        outcomes = train_stack(stack, starts, on_stack_epoch)
        return [
            (
                replace(outcome, seconds=outcome.seconds + share),
                functools.partial(stack.state_dict, index),
            )
            for index, outcome in enumerate(outcomes)
        ]


def _device_label(device: str) -> str:
    return "" if device == "cpu" else f" device={device}"


@dataclass(frozen=True)
class ReferenceEngine(StackEngine):
    """Plain torch modules, one after the other, on any device."""

    name: ClassVar[str] = "reference"

    @property
    def label(self) -> str:
        """See :class:`Engine`."""
        return f" engine={self.name}{_device_label(self.device)}"

    def start(self, starts: Sequence[ProbeStart]) -> ReferenceStack:
        """Return the models before their first step."""
        from engines.reference import ReferenceStack

        return ReferenceStack(starts, self.device)


@dataclass(frozen=True)
class NativeEngine(StackEngine):
    """The compiled engine: one model after the other, on a CPU.

    Its bits are the same on all x86-64 processors. On ARM they are as far as emulation goes; until
    they have been compared on a real one, its probes are kept apart.
    """

    name: ClassVar[str] = "native"

    @property
    def label(self) -> str:
        """See :class:`Engine`."""
        return "" if machine() == "x86_64" else f" machine={machine()}"

    @classmethod
    def why_not(cls, architecture: Architecture, protocol: Protocol) -> str | None:
        """See :class:`Engine`. That it is missing is another matter: ``find_engine`` says so."""
        if architecture.native_form is None:
            return f"has no {architecture.spec.name} {architecture.name}"
        changed = [n for n in NATIVE_SETTINGS if getattr(protocol, n) != NATIVE_SETTINGS[n]]
        return f"has no --{changed[0]} {getattr(protocol, changed[0])}" if changed else None

    def start(self, starts: Sequence[ProbeStart]) -> NativeStack:
        """Return the models before their first step."""
        from engines.native.stack import NativeStack

        return NativeStack(starts)


@dataclass(frozen=True)
class StackedEngine(StackEngine):
    """Many models in one tensor: the engine of GPUs, and the fallback for small models on a CPU."""

    name: ClassVar[str] = "stacked"

    @property
    def label(self) -> str:
        """See :class:`Engine`."""
        return f" engine={self.name}" if self.device == "cpu" else _device_label(self.device)

    @property
    def largest_job(self) -> int:
        """See :class:`Engine`."""
        return 5 if self.device == "cpu" else CUDA_LANES

    @classmethod
    def why_not(cls, architecture: Architecture, protocol: Protocol) -> str | None:
        """See :class:`Engine`. What vmap cannot run otherwise shows when the models are there."""
        spec = architecture.spec
        if not spec.stacked and not spec.vmap:
            return f"cannot run {spec.name}: its spec says so"
        if protocol.find_optimizer().stacked is None:
            return f"has no --optimizer {protocol.optimizer}"
        return f"has no --loss {protocol.loss}" if protocol.find_loss().reweight else None

    def _train(
        self, probes: Sequence[Probe], on_epoch: OnEpoch
    ) -> list[tuple[Outcome, Callable[[], Weights]]]:
        from engines.stacked import stack_rows

        stacks: dict[int, list[int]] = {}
        for index, probe in enumerate(probes):
            stacks.setdefault(stack_rows(probe.protocol, probe.n), []).append(index)
        trained: dict[int, tuple[Outcome, Callable[[], Weights]]] = {}
        for indices in stacks.values():
            hear = on_epoch if 0 in indices else lambda record: None
            own = super()._train([probes[index] for index in indices], hear)
            trained.update(zip(indices, own, strict=True))
        return [trained[index] for index in range(len(probes))]

    def start(self, starts: Sequence[ProbeStart]) -> StackedModels:
        """Return the models before their first step."""
        from engines.stacked import StackedModels

        if self.device == "cpu":
            return StackedModels(starts)
        return StackedModels(starts, self.device, host_masks=False, lanes=CUDA_LANES)


@dataclass(frozen=True)
class LinearProgramEngine(Engine):
    """No training: what is the best that any could do? Of models that are linear, on a CPU.

    An outcome's epochs are the positions that a program was solved for.
    """

    name: ClassVar[str] = "linear-program"

    @classmethod
    def why_not(cls, architecture: Architecture, protocol: Protocol) -> str | None:
        """See :class:`Engine`."""
        spec = architecture.spec
        is_none = not spec.is_linear(architecture)
        return f"needs a linear model: {spec.name} {architecture.name} is none" if is_none else None

    def check(self, probe: Probe) -> None:
        """See :class:`Engine`."""
        own = probe.protocol
        published = probe.architecture.spec.protocol(
            task=own.task, vocab_size=own.vocab_size, seq_len=own.seq_len
        )
        if probe.attempt or own != published:
            raise UserError(
                f"--engine {self.name} trains nothing: it takes no setting of the training, "
                "nor --attempt"
            )

    @property
    def label(self) -> str:
        """See :class:`Engine`."""
        return f" engine={self.name}"

    def _train(
        self, probes: Sequence[Probe], on_epoch: OnEpoch
    ) -> list[tuple[Outcome, Callable[[], Weights]]]:
        from engines.linear_program import solve_positions
        from training.start import start_probe

        (probe,) = probes
        begin = time.perf_counter()
        module, solved, loss, accuracy = solve_positions(start_probe(probe))
        is_separable = solved == probe.protocol.make_task().label_len
        outcome = Outcome(
            memorized=is_separable,
            accuracy=accuracy,
            loss=loss,
            epochs=solved if is_separable else solved + 1,
            stop_reason="perfect" if is_separable else "inseparable",
            seconds=time.perf_counter() - begin,
        )
        return [(outcome, module.state_dict)]
