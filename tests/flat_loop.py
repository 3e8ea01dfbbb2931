"""The oracle of all engines: the flat loop on a probe's data, model and streams."""

from training.loop import train
from training.start import start_probe


def train_flat(probe, on_epoch=None):
    """Train a probe with training/loop.py; return (TrainingResult, module with its weights)."""
    start = start_probe(probe)
    result = train(
        start.module, *start.tensors(), probe.protocol, start.orders, start.masks, on_epoch
    )
    return result, start.module
