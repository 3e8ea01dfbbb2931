"""Prints the SHA-256 of every random stream of one probe; run as a script by test_streams.py."""

import hashlib
import itertools

from dataset.portable_math import orthonormal_columns
from dataset.random_stream import RandomStream
from dataset.synthetic_generator import generate_mappings
from mlp_experiments.mlp_utils import MLPArchitecture
from training.probe import Probe
from training.start import build_model
from training.streams import ProbeStreams
from transformer_experiments.transformer_utils import TransformerArchitecture

IDENTITY = (1, 2, 100)  # seed, repeat, n


def sha256(*arrays):
    """Hash the bytes of ``arrays`` one after the other, as little-endian numbers."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def initial_weights(architecture, attempt=0, **changes):
    """Return the parameters of the probe's model, in their order."""
    probe = Probe(architecture, architecture.spec.protocol(**changes), *IDENTITY, attempt)
    model = build_model(probe, ProbeStreams(*IDENTITY, attempt))
    return [parameter.detach().numpy() for parameter in model.parameters()]


def stream_digests():
    """Return the SHA-256 of every stream by its name."""
    streams, attempt = ProbeStreams(*IDENTITY), ProbeStreams(*IDENTITY, 1)
    data = generate_mappings(100, seed=streams.data)
    mlp, transformer = MLPArchitecture(49, 2), TransformerArchitecture(32, 380, 4, 2)
    normal = RandomStream(0).normal(70 * 33).reshape(70, 33)
    return {
        "data": sha256(data.inputs, data.labels),
        "weights of an MLP": sha256(*initial_weights(mlp)),
        "weights of a transformer": sha256(*initial_weights(transformer)),
        "three batch orders": sha256(*itertools.islice(streams.batch_orders(100), 3)),
        "1000 mask draws": sha256(streams.dropout_masks(0.1).draw(1000)),
        "100,000 normal numbers": sha256(streams.initial_weights().normal(100_000)),
        "orthonormal columns": sha256(orthonormal_columns(normal)),
        "orthogonal weights of an MLP": sha256(*initial_weights(mlp, init="orthogonal")),
        "orthogonal weights of a transformer": sha256(
            *initial_weights(transformer, init="orthogonal")
        ),
        "another attempt": sha256(
            *initial_weights(mlp, attempt=1),
            *itertools.islice(attempt.batch_orders(100), 3),
            attempt.dropout_masks(0.1).draw(1000),
        ),
    }


if __name__ == "__main__":
    for name, digest in stream_digests().items():
        print(f"{name}: {digest}")
