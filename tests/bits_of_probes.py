"""Trains a few epochs of many small probes with the engine and prints what came out, bit by bit.

A program of its own, because a process loads one engine: test_bits.py runs it with several.
"""

import hashlib
import itertools

from native_runs import start_native

from mlp_experiments.mlp_utils import SPEC as MLP_SPEC
from mlp_experiments.mlp_utils import MLPArchitecture
from training.probe import Probe
from transformer_experiments.decoder_only_utils import SPEC as DECODER_ONLY_SPEC
from transformer_experiments.decoder_only_utils import DecoderOnlyArchitecture
from transformer_experiments.transformer_utils import SPEC as TRANSFORMER_SPEC
from transformer_experiments.transformer_utils import TransformerArchitecture

EPOCHS = 4
MLPS = [(0, 0), (49, 1), (41, 2), (36, 3), (33, 4), (30, 5), (149, 1), (7, 2), (215, 2)]
# (hidden_size, d_ff, num_heads, num_layers): heads of 1, 2, 4, 8, 3, 16, 32, 20 and 5 features.
TRANSFORMERS = [
    *[(32, 40, 32, 1), (32, 380, 16, 1), (32, 128, 8, 2), (32, 40, 4, 3), (24, 17, 8, 2)],
    *[(64, 83, 4, 2), (64, 256, 2, 1), (60, 31, 3, 1), (15, 7, 3, 2), (128, 175, 64, 1)],
]
# Likewise: heads of 16, 8, 64, 32, 4, 3 and 20 features.
DECODER_ONLYS = [
    *[(64, 256, 4, 1), (64, 83, 8, 2), (64, 40, 1, 3), (64, 70, 2, 2), (32, 40, 8, 1)],
    *[(15, 7, 5, 2), (60, 31, 3, 1)],
]


def probes():
    """Return pairs of a name and a probe; 40 mappings and more leave a short last batch."""
    for shape, dropout, n in itertools.product(MLPS, (0.0, 0.1), (5, 70)):
        architecture = MLPArchitecture(*shape)
        protocol = MLP_SPEC.protocol(dropout=dropout)
        yield f"mlp {architecture.name} {dropout} {n}", Probe(architecture, protocol, 0, 1, n)
    for shape, dropout, n in itertools.product(TRANSFORMERS, (0.0, 0.1), (3, 40)):
        architecture = TransformerArchitecture(*shape)
        protocol = TRANSFORMER_SPEC.protocol(dropout=dropout)
        yield f"{architecture.name} {dropout} {n}", Probe(architecture, protocol, 0, 1, n)
    for shape, dropout, n in itertools.product(DECODER_ONLYS, (0.0, 0.1), (3, 40)):
        architecture = DecoderOnlyArchitecture(*shape)
        protocol = DECODER_ONLY_SPEC.protocol(dropout=dropout)
        name = f"decoder-only {architecture.name} {dropout} {n}"
        yield name, Probe(architecture, protocol, 0, 1, n)


def bits(probe):
    """Return the exact losses of a probe's epochs and a digest of its last weights."""
    model, epochs = start_native(probe)
    losses = []
    for _ in range(EPOCHS):
        model.train_epoch(*next(epochs))
        losses.append(model.evaluate()[0].hex())
    weights = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
    return " ".join([*losses, hashlib.sha256(weights).hexdigest()])


if __name__ == "__main__":
    for name, probe in probes():
        print(f"{name}: {bits(probe)}")
