"""What a test needs to train one probe by compiled code and by the reference loop."""

import copy
import dataclasses

import torch

from engines.native.model import NativeModel
from engines.native.stack import NativeStack
from training.loop import train
from training.probe import Probe
from training.schedule import learning_rates
from training.start import start_probe


def start_native(probe):
    """Return the probe's compiled model before its first step, and its epochs."""
    start = start_probe(probe)
    return NativeStack([start]).models[0], start.epochs()


class Run:
    """A probe's pieces, fresh on every request but for the module."""

    def __init__(self, architecture, n, **changes):
        # Patience: only a perfect accuracy or the horizon ends these runs.
        changes = {"max_epochs": 50, "patience": 999, **changes}
        task = {name: getattr(architecture, name) for name in ("vocab_size", "seq_len")}
        self.protocol = architecture.spec.protocol(**task, **changes)
        self.architecture, self.n = architecture, n
        start = self.start()
        self.inputs, self.targets, self.module = start.inputs, start.targets, start.module

    def start(self):
        return start_probe(Probe(self.architecture, self.protocol, 1, 2, self.n))

    def orders(self):
        return self.start().orders

    def epochs(self):
        """Yield every epoch's order and learning rates."""
        return self.start().epochs()

    def epoch(self, order):
        """Return a given order with the learning rates of the first epoch."""
        return order, learning_rates(self.protocol, self.n, epoch=0)

    def masks(self):
        return self.start().masks

    def tensors(self):
        """Return inputs and targets as they are now: a test may have changed some."""
        return torch.from_numpy(self.inputs), torch.from_numpy(self.targets)

    def native(self):
        own = {name: getattr(self, name) for name in ("inputs", "targets", "module")}
        return NativeModel(dataclasses.replace(self.start(), **own))

    def reference(self):
        """Train a copy of the module by the reference loop; return it and its epoch records."""
        module, records, start = copy.deepcopy(self.module), [], self.start()
        pieces = self.protocol, start.orders, start.masks
        train(module, *self.tensors(), *pieces, records.append)
        return module, records
