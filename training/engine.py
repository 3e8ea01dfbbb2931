"""Trains probes with the engine and device that are asked for; the one door to all of them.

``reference`` is the plain loop of loop.py. ``fast`` is compiled code on a CPU (training/native),
stacked tensors on CUDA and on a CPU without a C++ compiler (stacked.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import numpy as np
from torch import Tensor

from dataset.synthetic_generator import generate_mappings
from training.loop import EpochRecord
from training.native.build import load_libraries, why_unavailable
from training.native.libraries import libraries_of
from training.native.mlp import NativeMLP
from training.native.model import NativeModel
from training.native.transformer import NativeTransformer
from training.probe import build_model, run_probe
from training.probe_types import Architecture, Outcome, Probe
from training.stacked import StackedTrainer
from training.stopping import Stopping
from training.streams import ProbeStreams

NATIVE_MODELS = {"mlp": NativeMLP, "transformer": NativeTransformer}

OnEpoch = Callable[[EpochRecord], None]
Weights = dict[str, Tensor]


def engine_used(engine: str, device: str, *architectures: Architecture) -> str:
    """Return which code trains all these: "native", "stacked" or "reference".

    ``engine`` is what was asked for, or such an answer itself. The first question of a process may
    wait for a compiler.
    """
    if engine in ("native", "stacked"):
        return engine
    if engine == "reference" or device == "mps":  # stacked.py needs float64, which MPS lacks
        return "reference"
    if device != "cpu":
        return "stacked"
    return "native" if load_libraries(_libraries(architectures)) else "stacked"


def _libraries(architectures: Iterable[Architecture]) -> list[str]:
    return list(dict.fromkeys(chain.from_iterable(map(libraries_of, architectures))))


def variant_label(engine: str, device: str) -> str:
    """Return the end of the protocol column for what :func:`engine_used` answered.

    It is empty for compiled code on a CPU.

    Other engines and devices round differently, so their probes are not mixed with those.
    """
    usual = "native" if device == "cpu" else "stacked"
    label = "" if engine == usual else f" engine={engine}"
    return label + ("" if device == "cpu" else f" device={device}")


def fallback_note(engine: str, device: str, *architectures: Architecture) -> str | None:
    """Return one line when the fast engine has to do without compiled code, else None."""
    if device != "cpu" or engine_used(engine, device, *architectures) != "stacked":
        return None
    reason = next(filter(None, map(why_unavailable, _libraries(architectures))))
    return f"note: {reason}; training with torch operations instead, more slowly"


def train_probe(
    probe: Probe, device: str = "cpu", engine: str = "fast", on_epoch: OnEpoch | None = None
) -> tuple[Outcome, Weights]:
    """Train one probe; return its outcome and the weights of its lowest-loss epoch."""
    used = engine_used(engine, device, probe.architecture)
    if used == "reference":
        outcome, model = run_probe(probe, device, on_epoch)
        return outcome, model.state_dict()
    if used == "native":
        return _train_native(probe, on_epoch)
    trainer = StackedTrainer([probe], device, host_masks=device == "cpu")
    outcome = trainer.run(lambda _, record: on_epoch(record) if on_epoch else None)[0]
    return outcome, trainer.weights(0)


def train_probes(probes: list[Probe], device: str, engine: str) -> list[Outcome]:
    """Return the outcomes of ``probes`` (one architecture and protocol) in their order."""
    if device == "cuda" and engine_used(engine, device, probes[0].architecture) == "stacked":
        return StackedTrainer(probes, device, host_masks=False).run()
    return [train_probe(probe, device, engine)[0] for probe in probes]


def start_native(probe: Probe) -> tuple[NativeModel, Iterator[np.ndarray]]:
    """Return the probe's compiled model before its first step, and its batch orders."""
    streams = ProbeStreams(probe.seed, probe.repeat, probe.n)
    task, protocol = probe.architecture, probe.protocol
    data = generate_mappings(probe.n, task.vocab_size, task.seq_len, streams.data)
    masks = streams.dropout_masks(protocol.dropout)
    module = build_model(probe, streams)
    model = NATIVE_MODELS[task.model](module, data.inputs, data.labels, protocol, masks)
    return model, streams.batch_orders(probe.n)


def _train_native(probe: Probe, on_epoch: OnEpoch | None) -> tuple[Outcome, Weights]:
    start = time.perf_counter()
    model, orders = start_native(probe)
    stopping, stop_reason, best = Stopping(probe.protocol), None, None
    while stop_reason is None:
        model.train_epoch(next(orders))
        loss, accuracy = model.evaluate()
        is_lowest, stop_reason = stopping.after_epoch(loss, accuracy)
        if is_lowest:
            best = model.weights()
        if on_epoch is not None:
            on_epoch(EpochRecord(stopping.epochs, loss, accuracy, model.learning_rate))
    if best is not None:
        model.load_weights(best)
    loss, accuracy = model.evaluate()
    outcome = Outcome(
        memorized=accuracy == 1.0 and stop_reason != "diverged",
        accuracy=accuracy,
        loss=loss,
        epochs=stopping.epochs,
        stop_reason=stop_reason,
        seconds=time.perf_counter() - start,
    )
    return outcome, model.state_dict()
