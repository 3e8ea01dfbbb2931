"""The decoder-only model's shape, parameter count, budget, grid, and spec. No torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dataset.encoding import next_token
from training.errors import UserError
from training.protocol import Protocol
from training.spec import Flag, ModelSpec, NativeForm, Report
from transformer_experiments.shapes import TransformerShape, label_note, nearest_shape

if TYPE_CHECKING:
    from dataset.synthetic_generator import Mappings
    from training.module import SequenceModel
    from transformer_experiments.decoder_only import DecoderOnly

DEPTHS = (1, 2, 3)
HEADS = (1, 2, 4, 8)
OPTIONS = {  # of each the default first
    "head": ("tied", "untied"),
    "position": ("learned", "rope"),
    "norm": ("pre", "post"),
    "activation": ("gelu", "relu"),
}


@dataclass(frozen=True)
class DecoderOnlyArchitecture(TransformerShape):
    """A decoder-only model's shape; without options it is GPT-2's."""

    head: str = "tied"
    position: str = "learned"
    norm: str = "pre"
    activation: str = "gelu"
    vocab_size: int = 10
    seq_len: int = 10
    label_len: int = 0  # 0: as the input's

    def __post_init__(self) -> None:
        """Fill in the length of labels; refuse shapes that do not exist."""
        super().__post_init__()
        object.__setattr__(self, "label_len", self.label_len or self.seq_len)
        for name, choices in OPTIONS.items():
            if getattr(self, name) not in choices:
                one_of = " or ".join(choices)
                raise UserError(f"--{name} must be {one_of}, got {getattr(self, name)}")
        width = self.hidden_size // self.num_heads
        if self.position == "rope" and width % 2:
            raise UserError(
                f"--position rope needs an even head width: --hidden-size {self.hidden_size} "
                f"and --heads {self.num_heads} make it {width}"
            )

    @property
    def num_positions(self) -> int:
        """Tokens that it reads: an input and its label but the last, 2T - 1 if both have T."""
        return self.seq_len + self.label_len - 1

    @property
    def num_parameters(self) -> int:
        """Every trained number: embeddings, layers, the LayerNorm at the end, an untied head.

        With V tokens, S positions, without options, L (4d^2 + 2df + 9d + f) + d (V + S + 2).
        """
        d, f = self.hidden_size, self.d_ff
        layer = 4 * d * d + 2 * d * f + 9 * d + f  # attention, MLP, their biases, two norms
        count = self.num_layers * layer + self.vocab_size * d
        if self.position == "learned":
            count += self.num_positions * d
        if self.norm == "pre":
            count += 2 * d
        if self.head == "untied":
            count += self.vocab_size * d
        return count

    @property
    def name(self) -> str:
        """Short name with what differs from GPT-2, such as ``d32 ff128 h4 x1 rope``."""
        others = [getattr(self, name) for name in OPTIONS]
        changed = [v for v, (usual, _) in zip(others, OPTIONS.values(), strict=True) if v != usual]
        return " ".join([super().name, *changed])


def solve(
    budget: int | None,
    vocab_size: int,
    seq_len: int,
    layers: int,
    heads: int,
    hidden_size: int | None = None,
    d_ff: int | None = None,
    untied: bool = False,
    position: str = "learned",
    norm: str = "pre",
    activation: str = "gelu",
    label_len: int = 0,
) -> DecoderOnlyArchitecture:
    """Return the model that the flags mean, ``budget`` always its true count to 1 %.

    See :func:`~transformer_experiments.shapes.nearest_shape`.
    """

    def make(size: int, width: int) -> DecoderOnlyArchitecture:
        head = "untied" if untied else "tied"
        options = (head, position, norm, activation)
        task = (vocab_size, seq_len, label_len)
        return DecoderOnlyArchitecture(size, width, heads, layers, *options, *task)

    step = 2 * heads if position == "rope" else heads
    return nearest_shape(budget, heads, layers, make, hidden_size, d_ff, matrices=4, step=step)


def grid(budget: int | None) -> Mapping[str, Sequence[int]]:
    """Return the depths and heads of a search."""
    return {"layers": DEPTHS, "heads": HEADS}


def _build(architecture: DecoderOnlyArchitecture, dropout: float) -> DecoderOnly:
    from transformer_experiments.decoder_only import DecoderOnly  # brings torch

    return DecoderOnly(architecture, dropout)


def _report(module: SequenceModel, mappings: Mappings) -> Report:
    from transformer_experiments.greedy import report

    return report(module, mappings)


def _is_gpt2(architecture: DecoderOnlyArchitecture) -> bool:
    return all(getattr(architecture, name) == usual for name, (usual, _) in OPTIONS.items())


SPEC = ModelSpec(
    name="decoder-only",
    architecture=DecoderOnlyArchitecture,
    solve=solve,
    build=_build,
    paper=Protocol(learning_rate=5e-4, dropout=0.1),
    flags=(
        Flag("layers", "decoder layers", default=1, metavar="L"),
        Flag("heads", "attention heads per layer", default=4, metavar="H"),
        Flag("hidden_size", "d_model, a multiple of the heads", metavar="D"),
        Flag("d_ff", "feed-forward width", metavar="F"),
        Flag("untied", "a head of its own instead of the token embedding", switch=True),
        Flag(
            "position",
            "learned embedding or rotation of queries and keys",
            default="learned",
            choices=OPTIONS["position"],
        ),
        Flag(
            "norm", "LayerNorm before the blocks or after", default="pre", choices=OPTIONS["norm"]
        ),
        Flag(
            "activation",
            "between the feed-forward layers",
            default="gelu",
            choices=OPTIONS["activation"],
        ),
    ),
    budget_help="parameter budget, solved for the true count",
    grid=grid,
    default_sequences=16,
    encode=next_token,
    label_note=label_note,
    report=_report,
    native=NativeForm(
        "decoder_only",
        shape=("hidden_size", "d_ff", "num_heads", "num_layers"),
        supports=_is_gpt2,
    ),
)
