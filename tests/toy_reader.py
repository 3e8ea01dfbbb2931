"""A toy that reads its own labels: logits from a table with a row per last two tokens."""

from dataclasses import dataclass

from dataset.encoding import next_token
from training.spec import Architecture, ModelSpec


@dataclass(frozen=True)
class PairArchitecture(Architecture):
    vocab_size: int = 10
    seq_len: int = 10

    @property
    def num_parameters(self):
        return self.vocab_size**3


def build(architecture, dropout):
    from torch import nn

    class Pairs(nn.Embedding):  # (B, 2T - 1) -> (B, 2T - 1, V); before the first stands a zero
        def draw_weights(self, stream):
            nn.init.zeros_(self.weight)

        def dropout_sites(self):
            return []

        def forward(self, tokens):
            before = nn.functional.pad(tokens, (1, 0))[:, :-1]
            return super().forward(architecture.vocab_size * before + tokens)

    return Pairs(architecture.vocab_size**2, architecture.vocab_size)


def solve(budget, vocab_size, seq_len):
    return PairArchitecture(vocab_size, seq_len)


SPEC = ModelSpec("pairs", PairArchitecture, solve, build, encode=next_token)
