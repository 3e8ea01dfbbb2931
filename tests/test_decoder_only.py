"""The decoder-only model against GPT-2, its options against others' code and plain formulas."""

import itertools
import math

import numpy as np
import pytest
import torch
from gpt2 import as_ours, gpt2, named
from torch import nn
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from dataset.encoding import IGNORED
from dataset.random_stream import RandomStream
from dataset.synthetic_generator import Mappings
from training.loop import evaluate
from transformer_experiments.decoder_only import activate, rotary_tables, rotate
from transformer_experiments.decoder_only_utils import (
    OPTIONS,
    SPEC,
    DecoderOnlyArchitecture,
)

SHAPES = [
    DecoderOnlyArchitecture(64, 256, 4, 1),
    DecoderOnlyArchitecture(24, 17, 3, 3),
    DecoderOnlyArchitecture(24, 40, 1, 2, "untied"),
    DecoderOnlyArchitecture(8, 5, 8, 2, activation="relu", vocab_size=3, seq_len=6),
    DecoderOnlyArchitecture(6, 4, 2, 1, vocab_size=2, seq_len=1),
]
COMBINATIONS = list(itertools.product(*OPTIONS.values()))


def by_name(shape):
    return shape.name


def same_weights(shape, dropout=0.0):
    """Return (ours, GPT-2) with the same, everywhere random weights."""
    ours, theirs = SPEC.build(shape, dropout), gpt2(shape, dropout)
    tensors = named(theirs)
    assert len(named(ours)) == len(tensors)
    with torch.no_grad():
        for tensor in tensors.values():
            tensor.copy_(0.3 * torch.randn_like(tensor))  # biases and norms too
        for name, parameter in named(ours).items():
            parameter.copy_(as_ours(name, tensors))
    return ours, theirs


def first_model(shape):
    """Return the model with weights from the stream."""
    model = SPEC.build(shape, 0.0)
    model.draw_weights(RandomStream(0))
    return model


def random_task(shape, rows):
    """Return inputs and targets of the shape's task, both (rows, S)."""
    length = 2 * shape.seq_len - 1
    inputs, targets = torch.randint(shape.vocab_size, (2, rows, length))
    targets[:, : shape.seq_len - 1] = IGNORED
    return inputs, targets


# --- It is GPT-2 -----------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("shape", SHAPES, ids=by_name)
def test_it_is_gpt2(shape, dtype, atol):
    torch.manual_seed(0)
    ours, theirs = (model.to(dtype).train() for model in same_weights(shape))
    inputs, targets = random_task(shape, rows=7)
    logits, expected = ours(inputs), theirs(inputs).logits
    assert logits.shape == (7, 2 * shape.seq_len - 1, shape.vocab_size)
    torch.testing.assert_close(logits, expected, rtol=0, atol=atol)

    loss, their_loss = (
        F.cross_entropy(answer.flatten(0, 1), targets.flatten()) for answer in (logits, expected)
    )
    torch.testing.assert_close(loss, their_loss, rtol=0, atol=atol)
    loss.backward()
    their_loss.backward()
    gradients = {name: parameter.grad for name, parameter in named(theirs).items()}
    for name, parameter in named(ours).items():
        torch.testing.assert_close(parameter.grad, as_ours(name, gradients), rtol=0, atol=atol)


@pytest.mark.parametrize("shape", SHAPES, ids=by_name)
def test_the_task_is_gpt2s_loss_on_input_and_label(shape):
    """GPT-2 reads all 2T tokens, shifts its labels itself and ignores the input's."""
    torch.manual_seed(0)
    ours, short = same_weights(shape)
    theirs = gpt2(shape, positions=2 * shape.seq_len)
    state = short.state_dict()
    rows = state["transformer.wpe.weight"]  # the last position predicts nothing that counts
    state["transformer.wpe.weight"] = torch.cat([rows, torch.randn_like(rows[:1])])
    theirs.load_state_dict(state)
    x, y = torch.randint(shape.vocab_size, (2, 7, shape.seq_len))
    inputs, targets = map(torch.from_numpy, SPEC.encode(Mappings(x.numpy(), y.numpy())))
    loss, _ = evaluate(ours, inputs, targets)
    labels = torch.cat([torch.full_like(x, IGNORED), y], dim=1)
    expected = theirs(torch.cat([x, y], dim=1), labels=labels).loss.item()
    assert loss == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("shape", SHAPES[:3], ids=by_name)
def test_dropout_sits_where_gpt2_has_it(shape):
    torch.manual_seed(0)
    ours, theirs = (model.train() for model in same_weights(shape, dropout=0.1))
    inputs, _ = random_task(shape, rows=3)
    # Both draw their masks in the same order, so one seed drops the same elements.
    for seed in range(5):
        torch.manual_seed(seed)
        dropped = ours(inputs)
        torch.manual_seed(seed)
        torch.testing.assert_close(dropped, theirs(inputs).logits, rtol=0, atol=1e-5)
    assert not torch.allclose(dropped, ours.eval()(inputs), atol=1e-2)


def test_the_sites_and_their_sizes():
    shape = DecoderOnlyArchitecture(24, 17, 3, 2, seq_len=4)  # S = 7
    model = SPEC.build(shape, 0.1).train()
    seen = []
    for layer, per_row in model.dropout_sites():
        layer.register_forward_hook(
            lambda _, arguments, __, per_row=per_row: seen.append(
                (arguments[0][0].numel(), per_row)
            )
        )
    model(torch.zeros(5, 7, dtype=torch.int64))
    assert seen == [(n, n) for n in [168, *[3 * 49, 168, 168] * 2]]  # in the order of use


@pytest.mark.parametrize("options", COMBINATIONS, ids=" ".join)
def test_a_token_reaches_itself_and_what_follows(options):
    torch.manual_seed(0)
    shape = DecoderOnlyArchitecture(8, 12, 2, 2, *options, seq_len=4)
    model = first_model(shape).eval()
    inputs, _ = random_task(shape, rows=6)
    for position in range(7):
        other = inputs.clone()
        other[:, position] = (other[:, position] + 1) % 10
        with torch.no_grad():
            changed = (model(inputs) != model(other)).any(-1).any(0)
        assert changed.tolist() == [i >= position for i in range(7)]


# --- Its options -----------------------------------------------------------------------------


def test_gelu_is_the_tanh_form():
    x = torch.linspace(-6, 6, 1001, dtype=torch.float64)
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    torch.testing.assert_close(activate("gelu", x), x / 2 * (1 + inner.tanh()), rtol=0, atol=1e-12)
    torch.testing.assert_close(activate("relu", x), x.clamp(min=0), rtol=0, atol=0)


@pytest.mark.parametrize("width", [2, 6, 16])
def test_the_rotation_is_that_of_transformers(width):
    torch.manual_seed(0)
    query, key = torch.randn(2, 3, 4, 19, width, dtype=torch.float64)
    tables = rotary_tables(19, width)
    both = (torch.cat([table, table], dim=-1).unsqueeze(0) for table in tables)
    expected = apply_rotary_pos_emb(query, key, *both)
    for x, rotated in zip((query, key), expected, strict=True):
        torch.testing.assert_close(rotate(x, tables), rotated, rtol=0, atol=1e-12)
    p, i = np.arange(19)[:, None], np.arange(width // 2)
    turn = np.exp(1j * p * 10_000 ** (-2 * i / width))  # a pair as one complex number
    real, imaginary = np.split(query.numpy(), 2, axis=-1)
    pairs = turn * (real + 1j * imaginary)
    turned = np.concatenate([pairs.real, pairs.imag], axis=-1)
    np.testing.assert_allclose(rotate(query, tables), turned, atol=1e-12)


def test_rotated_attention_knows_distances_alone():
    """Scores depend on the positions' difference; queries and keys are rotated, not values."""
    torch.manual_seed(0)
    model = first_model(DecoderOnlyArchitecture(16, 8, 2, 1, position="rope"))
    attention = model.layers[0].attention
    nn.init.normal_(attention.in_proj.weight)
    tables = rotary_tables(19, 8)
    query, key = torch.randn(2, 8, dtype=torch.float64)
    scores = rotate(query.expand(19, 8), tables) @ rotate(key.expand(19, 8), tables).T
    for distance in range(-18, 19):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=0, atol=1e-12)
    x, mask = torch.randn(2, 19, 16), torch.full((19, 19), -math.inf).triu(1)
    short = tuple(table.float() for table in tables)
    rotated, plain = attention(x, mask, short), attention(x, mask, None)
    torch.testing.assert_close(rotated[:, 0], plain[:, 0], rtol=0, atol=1e-7)
    assert not torch.allclose(rotated[:, 2:], plain[:, 2:], atol=1e-3)


def reference_attention(x, layer, num_heads, is_rotated):
    """Attention of one row ``x`` (S, d), head by head and position by position."""
    length, size = x.shape
    width = size // num_heads
    projected = x @ layer.in_proj.weight.T + layer.in_proj.bias
    mixed = torch.zeros_like(x)
    for head, position in itertools.product(range(num_heads), range(length)):
        at = slice(head * width, (head + 1) * width)
        query, key, value = (part[:, at] for part in projected.split(size, dim=1))
        if is_rotated:
            query, key = (rotate(part, rotary_tables(length, width)) for part in (query, key))
        seen = key[: position + 1] @ query[position] / math.sqrt(width)
        mixed[position, at] = seen.softmax(0) @ value[: position + 1]
    return mixed @ layer.out_proj.weight.T + layer.out_proj.bias


@pytest.mark.parametrize("options", COMBINATIONS, ids=" ".join)
def test_every_combination_against_a_plain_formula(options):
    shape = DecoderOnlyArchitecture(12, 9, 2, 2, *options, vocab_size=5, seq_len=4)
    torch.manual_seed(0)
    model = SPEC.build(shape, 0.0).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.5 * torch.randn_like(parameter))
    inputs, _ = random_task(shape, rows=2)
    head, position, norm, activation = options
    for tokens, logits in zip(inputs, model(inputs), strict=True):
        x = model.token_embedding.weight[tokens]
        if position == "learned":
            x = x + model.position_embedding.weight
        for layer in model.layers:
            before = (layer.norm1, layer.norm2) if norm == "pre" else (nn.Identity(),) * 2
            after = (nn.Identity(),) * 2 if norm == "pre" else (layer.norm1, layer.norm2)
            attended = reference_attention(before[0](x), layer.attention, 2, position == "rope")
            x = after[0](x + attended)
            x = after[1](x + layer.linear2(activate(activation, layer.linear1(before[1](x)))))
        if norm == "pre":
            x = model.norm(x)
        matrix = model.head.weight if head == "untied" else model.token_embedding.weight
        # The model's rotary tables are rounded to float32.
        atol = 1e-5 if position == "rope" else 1e-10
        torch.testing.assert_close(x @ matrix.T, logits, rtol=0, atol=atol)


def test_post_norm_is_torchs_encoder_layer_with_a_mask():
    torch.manual_seed(0)
    shape = DecoderOnlyArchitecture(24, 17, 3, 2, norm="post", activation="relu")
    ours = SPEC.build(shape, 0.0).double()
    layer = nn.TransformerEncoderLayer(24, 3, 17, 0.0, norm_first=False, batch_first=True)
    theirs = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double()
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(0.3 * torch.randn_like(parameter))
    of_torch = {"attention.in_proj.": "self_attn.in_proj_", "attention.": "self_attn."}
    state = {}
    for name, parameter in named(ours).items():
        if name.startswith("layers."):
            for own, other in of_torch.items():
                name = name.replace(own, other)
            state[name] = parameter
    theirs.load_state_dict(state)
    inputs, _ = random_task(shape, rows=5)
    x = ours.token_embedding(inputs) + ours.position_embedding.weight
    x = theirs(x, mask=torch.ones(19, 19, dtype=torch.bool).triu(1))
    expected = x @ ours.token_embedding.weight.T
    torch.testing.assert_close(ours(inputs), expected, rtol=0, atol=1e-10)
