"""The stacked forward passes against the modules' own, and what vmap cannot run."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from toy_lookup import LookupArchitecture
from toy_reader import PairArchitecture
from vmap_step import TOLERANCE, forms_of, largest_difference, stack_of

from dataset.encoding import IGNORED
from engines.forward import VmapForward
from engines.stacked import StackedModels
from mlp_experiments.mlp_utils import MLPArchitecture
from training.errors import UserError
from training.module import SequenceModel
from training.probe import Probe
from training.session import train_stack
from training.spec import Architecture, ModelSpec
from training.start import start_probe
from transformer_experiments.decoder_only_utils import DecoderOnlyArchitecture
from transformer_experiments.transformer_utils import TransformerArchitecture

CASES = [
    pytest.param(architecture, dropout, form, id=f"{architecture.spec.name}-{dropout}-{form}")
    for architecture, dropout in [
        (MLPArchitecture(0, 0), 0.0),
        (MLPArchitecture(20, 2), 0.0),
        (MLPArchitecture(20, 2), 0.3),
        (TransformerArchitecture(16, 20, 4, 2), 0.0),
        (TransformerArchitecture(16, 20, 4, 2), 0.3),
        (DecoderOnlyArchitecture(16, 20, 4, 2), 0.3),
        (DecoderOnlyArchitecture(16, 20, 4, 2, "untied", "rope", "post", "relu"), 0.3),
        (LookupArchitecture(64), 0.0),
        (PairArchitecture(), 0.0),
    ]
    for form in forms_of(architecture)
]


def starts_of(architecture, dropout, sizes=(40, 33, 64)):
    protocol = architecture.spec.protocol(dropout=dropout, max_epochs=2)
    probes = [Probe(architecture, protocol, 0, repeat, n) for repeat, n in enumerate(sizes)]
    return [start_probe(probe) for probe in probes]


@pytest.mark.parametrize(("architecture", "dropout", "form"), CASES)
def test_logits_and_gradients_are_the_modules_own(architecture, dropout, form):
    starts = starts_of(architecture, dropout)
    for start in starts:
        start.targets[::3, 1::2] = IGNORED
    for sizes in ((32, 32, 32), (32, 1, 7)):  # full batches, and short last ones
        assert largest_difference(stack_of(starts, form), starts, sizes) < TOLERANCE


def test_both_forms_of_a_model_train_alike():
    architecture = MLPArchitecture(20, 2)
    assert forms_of(architecture) == ["hand", "vmap"]
    outcomes = []
    for form in ("hand", "vmap"):
        starts = starts_of(architecture, 0.3)
        outcomes.append(train_stack(stack_of(starts, form), starts))
    for hand, mapped in zip(*outcomes, strict=True):
        assert mapped.loss == pytest.approx(hand.loss, rel=1e-4)
        assert mapped.epochs == hand.epochs


def test_masks_do_not_outlive_the_pass():
    starts = starts_of(TransformerArchitecture(16, 20, 4, 2), 0.3)
    stack = StackedModels(starts)
    module = stack._forward._module
    before = [parameter.clone() for parameter in module.parameters()]
    train_stack(stack, starts)
    layers = [layer for layer, _ in module.dropout_sites()]
    assert len(layers) == 12
    assert all(layer.step_mask is None for layer in layers)
    assert all(map(torch.equal, before, module.parameters()))


@pytest.mark.parametrize("options", [{}, {"padding_idx": 2}, {"scale_grad_by_freq": True}])
def test_a_product_is_the_lookup(options):
    """With the same numbers, and a gradient that differs by rounding alone."""
    embeddings = [nn.Embedding(5, 3, **options) for _ in range(2)]
    tokens = torch.tensor([[[0, 2, 4, 4]], [[2, 2, 1, 0]]])
    weights = torch.stack([e.weight.detach() for e in embeddings]).requires_grad_()
    module = Plain()
    module.embedding = embeddings[0]
    forward = VmapForward(module, torch.device("cpu"))
    rows = forward({"embedding.weight": weights}, tokens, None)
    factors = torch.rand(rows.shape)
    (gradient,) = torch.autograd.grad((rows * factors).sum(), weights)
    for embedding, own, row, factor, part in zip(
        embeddings, tokens, rows, factors, gradient, strict=True
    ):
        expected = embedding(own)
        assert torch.equal(row, expected)
        (expected * factor).sum().backward()
        torch.testing.assert_close(part, embedding.weight.grad)


# What vmap or a captured graph cannot run.


class Plain(SequenceModel):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 10)

    def draw_weights(self, stream):
        nn.init.zeros_(self.embedding.weight)

    def forward(self, tokens):
        return self.embedding(tokens)


class Branching(Plain):
    def forward(self, tokens):
        logits = super().forward(tokens)
        return logits if logits.sum() > 0 else -logits


class LooksAtABuffer(Plain):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.tensor(2.0))

    def forward(self, tokens):
        return super().forward(tokens) * float(self.scale)


class OwnDropout(Plain):
    def forward(self, tokens):
        return nn.functional.dropout(super().forward(tokens), 0.1, self.training)


class CountsItsCalls(Plain):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(10)

    def forward(self, tokens):
        return self.norm(super().forward(tokens))


class PartlyFrozen(Plain):
    def __init__(self):
        super().__init__()
        self.frozen = nn.Parameter(torch.ones(10), requires_grad=False)

    def forward(self, tokens):
        return super().forward(tokens) * self.frozen


class Unused(Plain):
    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.ones(10))


class OtherBuffers(Plain):
    def __init__(self):
        super().__init__()
        self.register_buffer("factors", torch.ones(10))

    def draw_weights(self, stream):
        super().draw_weights(stream)
        self.factors *= float(stream.uniform(1)[0])

    def forward(self, tokens):
        return super().forward(tokens) * self.factors


def starts_with(module):
    @dataclass(frozen=True)
    class Toy(Architecture):
        vocab_size: int = 10
        seq_len: int = 10

        @property
        def num_parameters(self):
            return 100

    ModelSpec("toy", Toy, lambda *_, **__: Toy(), lambda *_: module())
    return starts_of(Toy(), 0.0)


@pytest.mark.parametrize("module", [Plain, PartlyFrozen])
def test_a_plain_module_trains_but_for_what_is_frozen(module):
    starts = starts_with(module)
    before = [dict(start.module.named_parameters()) for start in starts]
    stack = StackedModels(starts)
    assert len(train_stack(stack, starts)) == len(starts)
    for index, parameters in enumerate(before):
        for name, trained in stack.state_dict(index).items():
            assert torch.equal(trained, parameters[name]) != parameters[name].requires_grad


@pytest.mark.parametrize(
    "module",
    [Branching, LooksAtABuffer, OwnDropout, CountsItsCalls, Unused, OtherBuffers],
)
def test_one_line_says_what_to_do_instead(module):
    with pytest.raises(UserError) as raised:
        StackedModels(starts_with(module))
    message = str(raised.value)
    assert "\n" not in message
    for words in ("the module of toy", "--engine reference", "vmap=False"):
        assert words in message
