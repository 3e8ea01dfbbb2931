"""A task and a model of one's own: Gaussian vectors with random labels, fixed features."""

from dataclasses import dataclass

import numpy as np

from dataset.random_stream import RandomStream
from dataset.synthetic_generator import Mappings
from dataset.task import Task
from training.protocol import Protocol
from training.spec import Architecture, Flag, ModelSpec


class Vectors(Task):
    """Points in R^seq_len, each with one of three classes."""

    has_vectors = True
    label_vocab_size = 3
    label_len = 1

    def generate(self, n, seed):
        stream = RandomStream(seed)
        inputs = stream.normal(n * self.seq_len).reshape(n, self.seq_len).astype(np.float32)
        return Mappings(inputs, stream.integers(3, n).reshape(n, 1).astype(np.int64))


@dataclass(frozen=True)
class FeaturesArchitecture(Architecture):
    features: int
    seq_len: int = 10
    label_vocab_size: int = 10
    label_len: int = 10

    @property
    def num_parameters(self):
        return self.features * self.label_len * self.label_vocab_size


def solve(budget, features=64, **task):
    return FeaturesArchitecture(features, **task)


def build(architecture, dropout):
    import torch
    from torch import nn

    class Features(nn.Module):
        """A linear map of random features, which are never trained."""

        def __init__(self):
            super().__init__()
            a = architecture
            self.fixed = nn.Parameter(torch.ones(a.seq_len, a.features), requires_grad=False)
            self.head = nn.Linear(a.features, a.label_len * a.label_vocab_size, bias=False)

        def draw_weights(self, stream):
            with torch.no_grad():
                for weight in self.parameters():
                    drawn = stream.normal(weight.numel()).reshape(weight.shape)
                    weight.copy_(torch.from_numpy(drawn.astype(np.float32)) / 8)

        def dropout_sites(self):
            return []

        def forward(self, x):  # (B, d) -> (B, L, V)
            hidden = torch.relu(x @ self.fixed.to(x.dtype))
            return self.head(hidden).view(-1, architecture.label_len, architecture.label_vocab_size)

    return Features()


SPEC = ModelSpec(
    "features",
    FeaturesArchitecture,
    solve,
    build,
    paper=Protocol(task="toy_vectors:Vectors", learning_rate=0.05, weight_decay=0.0, patience=0),
    flags=(Flag("features", "fixed random features", default=64),),
    encode=lambda mappings: (mappings.inputs, mappings.labels),
    reads_vectors=True,
)
