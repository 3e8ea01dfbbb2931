"""What a probe starts from: its data, fresh model and streams, for every engine the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dataset.encoding import IGNORED
from dataset.synthetic_generator import Mappings
from training.initial_weights import draw_orthogonal_weights
from training.module import SequenceModel
from training.probe import Probe
from training.schedule import learning_rates
from training.streams import MaskStream, ProbeStreams


def build_model(probe: Probe, streams: ProbeStreams) -> SequenceModel:
    """Return the probe's freshly initialised model on the CPU, in the protocol's dtype.

    Its weights are rounded to float32 before, whatever that is.

    Torch's global generator, from which modules first draw weights of their own, is restored.
    """
    protocol, stream = probe.protocol, streams.initial_weights()
    with torch.random.fork_rng(devices=[]):
        model = probe.architecture.spec.build(probe.architecture, protocol.dropout)
    model.draw_weights(stream)
    if protocol.init == "orthogonal":
        draw_orthogonal_weights(model, stream)
    return model.to(getattr(torch, protocol.dtype))


@dataclass(frozen=True)
class ProbeStart:
    """What every engine starts a probe from; orders and masks move on as they are drawn."""

    probe: Probe
    inputs: np.ndarray  # (N, S) int64, or of a task with vectors the dtype of the protocol
    targets: np.ndarray  # (N, positions) int64
    module: SequenceModel
    orders: Iterator[np.ndarray]  # one permutation of range(N) per epoch
    masks: MaskStream

    def epochs(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield every epoch's order (rows,) and learning rates (steps,).

        An epoch that ``max_steps`` cuts short has fewer rows than N.
        """
        protocol = self.probe.protocol
        for epoch, order in enumerate(self.orders):
            rates = learning_rates(protocol, self.probe.n, epoch)
            yield order[: len(rates) * protocol.batch_size], rates

    def tensors(self, device: str = "cpu") -> tuple[Tensor, Tensor]:
        """Return inputs and targets on ``device``."""
        return torch.from_numpy(self.inputs).to(device), torch.from_numpy(self.targets).to(device)


def probe_mappings(probe: Probe) -> Mappings:
    """Return the examples that the probe trains on."""
    streams = ProbeStreams(probe.seed, probe.repeat, probe.n, probe.attempt)
    return probe.protocol.make_task().generate(probe.n, streams.data)


def start_probe(probe: Probe) -> ProbeStart:
    """Return the probe's data, fresh model and streams."""
    streams = ProbeStreams(probe.seed, probe.repeat, probe.n, probe.attempt)
    spec = probe.architecture.spec
    inputs, targets = spec.encode(probe_mappings(probe))
    if inputs.dtype.kind == "f":
        inputs = inputs.astype(probe.protocol.dtype)
    if len(inputs) != len(targets) or not (targets != IGNORED).any(axis=1).all():
        raise ValueError(f"the encoding of {spec.name} leaves an example without a target")
    return ProbeStart(
        probe,
        inputs,
        targets,
        build_model(probe, streams),
        streams.batch_orders(probe.n),
        streams.dropout_masks(probe.protocol.dropout),
    )
