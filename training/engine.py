"""Trains probes with the engine and device that are asked for; the one door to all of them.

``reference`` is the plain loop of loop.py. ``fast`` is the compiled engine on a CPU
(training/native), stacked tensors on CUDA (stacked.py). Where the compiled engine is missing it is
whichever of the other two is faster for a model.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from torch import Tensor

from training.loop import EpochRecord
from training.native.build import machine
from training.native.load import Unavailable, find_engine, load_engine
from training.native.model import SHAPES, NativeModel
from training.native.stack import NativeStack
from training.probe import run_probe, start_probe
from training.probe_types import Architecture, Outcome, Probe
from training.session import Epoch, train_stack
from training.stacked import StackedModels

LARGEST_STACKED_MLP = 40_000  # parameters
STACKED_ON_A_CPU, STACKED_ON_A_GPU = 5, 64  # models

OnEpoch = Callable[[EpochRecord], None]
Weights = dict[str, Tensor]


def engine_used(engine: str, device: str, architecture: Architecture) -> str:
    """Return which code trains ``architecture``: "native", "stacked" or "reference".

    ``engine`` is what was asked for, or such an answer itself.
    """
    if engine in ("native", "stacked"):
        return engine
    if engine == "reference" or device == "mps":  # stacked.py needs float64, which MPS lacks
        return "reference"
    if device != "cpu":
        return "stacked"
    has_native_form = architecture.model in SHAPES
    return "native" if has_native_form and load_engine() else _without_compiled_code(architecture)


def _without_compiled_code(architecture: Architecture) -> str:
    """Return whichever of "stacked" and "reference" is faster for ``architecture`` on a CPU.

    Measured by benchmarks/step_times.py: stacking five repeats gains a factor of 2 to 4 for MLPs of
    10,000 and 30,000 parameters; with larger ones, and transformers, it loses.
    """
    is_small = architecture.model == "mlp" and architecture.num_parameters <= LARGEST_STACKED_MLP
    return "stacked" if is_small else "reference"


def variant_label(engine: str, device: str) -> str:
    """Return the end of the protocol column for what :func:`engine_used` answered.

    It is empty for the compiled engine on x86-64 processors, whose bits are the same on all of
    them. Other engines and devices round differently, so their probes are not mixed with those. On
    ARM the bits are the same as far as emulation goes; until they have been compared on a real one,
    its probes are kept apart.
    """
    usual = "native" if device == "cpu" else "stacked"
    label = "" if engine == usual else f" engine={engine}"
    if engine == "native" and machine() != "x86_64":
        label += f" machine={machine()}"
    return label + ("" if device == "cpu" else f" device={device}")


def stack_size(engine: str, device: str) -> int:
    """Return how many models train together at most where :func:`engine_used` said ``engine``."""
    if engine != "stacked":
        return 1
    return STACKED_ON_A_CPU if device == "cpu" else STACKED_ON_A_GPU


def fallback_note(engine: str, device: str, architectures: Iterable[Architecture]) -> str | None:
    """Return one line when the fast engine has to do without compiled code, else None."""
    missing = find_engine()
    if engine != "fast" or device != "cpu" or not isinstance(missing, Unavailable):
        return None
    used = sorted({engine_used(engine, device, architecture) for architecture in architectures})
    names = {"reference": "the reference loop", "stacked": "stacked torch operations"}
    return (
        f"note: {missing.reason}; using {' or '.join(names[name] for name in used)} instead, more "
        f"slowly; these probes are counted apart, as {' or '.join(f'engine={n}' for n in used)}; "
        f"{missing.remedy}"
    )


def train_probe(
    probe: Probe,
    device: str = "cpu",
    engine: str = "fast",
    on_epoch: OnEpoch = lambda record: None,
) -> tuple[Outcome, Weights]:
    """Train one probe; return its outcome and the weights of its lowest-loss epoch."""
    used = engine_used(engine, device, probe.architecture)
    if used == "reference":
        outcome, model = run_probe(probe, device, on_epoch)
        return outcome, model.state_dict()
    outcomes, stack = _train_stack([probe], device, used, lambda _, record: on_epoch(record))
    return outcomes[0], stack.state_dict(0)


def train_probes(probes: list[Probe], device: str, engine: str) -> list[Outcome]:
    """Return the outcomes of ``probes`` (one architecture and protocol) in their order."""
    used = engine_used(engine, device, probes[0].architecture)
    if used == "reference":
        return [run_probe(probe, device)[0] for probe in probes]
    return _train_stack(probes, device, used)[0]


def _train_stack(
    probes: list[Probe],
    device: str,
    used: str,
    on_epoch: Callable[[int, EpochRecord], None] = lambda index, record: None,
) -> tuple[list[Outcome], NativeStack | StackedModels]:
    begin = time.perf_counter()
    starts = [start_probe(probe) for probe in probes]
    stack: NativeStack | StackedModels
    if used == "native":
        stack = NativeStack(starts)
    else:
        stack = StackedModels(starts, device, host_masks=device == "cpu")
    share = (time.perf_counter() - begin) / len(probes)
    outcomes = train_stack(stack, starts, on_epoch)
    return [replace(outcome, seconds=outcome.seconds + share) for outcome in outcomes], stack


def start_native(probe: Probe) -> tuple[NativeModel, Iterator[Epoch]]:
    """Return the probe's compiled model before its first step, and its epochs.

    ``model.train_epoch(*next(epochs))`` trains one.
    """
    start = start_probe(probe)
    return NativeStack([start]).models[0], start.epochs()
