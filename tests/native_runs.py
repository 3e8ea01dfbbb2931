"""What a test needs to train one probe by compiled code and by the reference loop."""

import copy

import torch

from dataset.synthetic_generator import generate_mappings
from training.loop import train
from training.native.model import NativeModel
from training.probe import build_model
from training.probe_types import Probe
from training.protocol import Protocol
from training.streams import ProbeStreams


class Run:
    """A probe's pieces: module, data, and fresh streams on request."""

    def __init__(self, architecture, n, **changes):
        # Patience: only a perfect accuracy or the horizon ends these runs.
        changes = {"max_epochs": 50, "patience": 999, **changes}
        self.protocol = Protocol.paper(architecture.model, **changes)
        self.architecture, self.n = architecture, n
        streams = self.streams()
        data = generate_mappings(n, architecture.vocab_size, architecture.seq_len, streams.data)
        self.inputs, self.labels = data.inputs, data.labels
        self.module = build_model(Probe(architecture, self.protocol, 1, 2, n), streams)

    def streams(self):
        return ProbeStreams(1, 2, self.n)

    def masks(self):
        return self.streams().dropout_masks(self.protocol.dropout)

    def tensors(self):
        return torch.from_numpy(self.inputs), torch.from_numpy(self.labels)

    def native(self):
        data = self.inputs, self.labels
        return NativeModel(self.architecture, self.module, *data, self.protocol, self.masks())

    def reference(self):
        """Train a copy of the module by the reference loop; return it and its epoch records."""
        module, records = copy.deepcopy(self.module), []
        orders = self.streams().batch_orders(self.n)
        train(module, *self.tensors(), self.protocol, orders, self.masks(), records.append)
        return module, records
