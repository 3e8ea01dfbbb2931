"""Train one probe with the reference loop. Same probe, same outcome."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from dataset.synthetic_generator import generate_mappings
from training.loop import EpochRecord, train
from training.probe_types import Outcome, Probe
from training.streams import ProbeStreams


def build_model(probe: Probe, streams: ProbeStreams) -> nn.Module:
    """Return the probe's freshly initialised model on the CPU.

    Torch's global generator, from which the modules first draw weights of their own, is restored.
    """
    with torch.random.fork_rng(devices=[]):
        model = probe.architecture.build(probe.protocol.dropout)
    model.draw_weights(streams.initial_weights())
    return model


def run_probe(
    probe: Probe,
    device: str = "cpu",
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> tuple[Outcome, nn.Module]:
    """Train the probe with the reference loop; return its outcome and the restored model."""
    start = time.perf_counter()
    streams = ProbeStreams(probe.seed, probe.repeat, probe.n)
    task = probe.architecture
    data = generate_mappings(probe.n, task.vocab_size, task.seq_len, streams.data)
    model = build_model(probe, streams).to(device)
    result = train(
        model,
        torch.from_numpy(data.inputs).to(device),
        torch.from_numpy(data.labels).to(device),
        probe.protocol,
        streams.batch_orders(probe.n),
        streams.dropout_masks(probe.protocol.dropout),
        on_epoch,
    )
    fields: dict[str, Any] = vars(result)
    return Outcome(**fields, seconds=time.perf_counter() - start), model
