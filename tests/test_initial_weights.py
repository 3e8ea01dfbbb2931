"""Initial weights: torch's distributions, in the documented order, from our own stream."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import nn

from dataset.portable_math import ordered_sum, orthonormal_columns
from dataset.random_stream import RandomStream
from mlp_experiments.mlp_utils import SPEC as MLP_SPEC
from mlp_experiments.mlp_utils import MLPArchitecture
from training.initial_weights import draw_orthogonal
from training.probe import Probe
from training.start import build_model
from training.streams import ProbeStreams
from transformer_experiments.transformer_utils import TransformerArchitecture

TRANSFORMER = TransformerArchitecture(24, d_ff=37, num_heads=3, num_layers=3)
MODELS = 40  # as many of each, for small parameters too


def torch_mlp(shape):
    features = shape.vocab_size * shape.seq_len
    widths = [features] + [shape.hidden_size] * shape.num_layers + [features]
    return [
        (f"linears.{i}", nn.Linear(wide, narrow))
        for i, (wide, narrow) in enumerate(itertools.pairwise(widths))
    ]


def torch_transformer(shape):
    size = shape.hidden_size
    tokens, positions = nn.Embedding(shape.vocab_size, size), nn.Embedding(shape.seq_len, size)
    layer = nn.TransformerDecoderLayer(size, shape.num_heads, shape.d_ff)
    return [
        ("token_embedding", tokens),
        ("position_embedding", positions),
        ("layers", nn.TransformerDecoder(layer, shape.num_layers).layers),
        ("head", nn.Linear(size, shape.vocab_size)),
    ]


CASES = [
    (MLPArchitecture(0, 0), torch_mlp),
    (MLPArchitecture(33, 2, vocab_size=7, seq_len=5), torch_mlp),
    (TRANSFORMER, torch_transformer),
]
every_case = pytest.mark.parametrize(
    ("shape", "modules"), CASES, ids=lambda case: getattr(case, "name", "")
)


def parameters_of_torch(shape, modules):
    return {
        f"{start}.{name}": parameter.detach().numpy()
        for start, module in modules(shape)
        for name, parameter in module.named_parameters()
    }


def drawn(shape, seed):
    model = shape.spec.build(shape, 0.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)  # of which nothing may remain
    model.draw_weights(RandomStream(seed))
    return {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}


def pooled(models):
    return {name: np.stack([model[name] for model in models]) for name in models[0]}


def is_in_projection(name):
    return name.endswith("in_proj_weight")


def distribution(shape, name, tensors):
    """Return (lowest, highest, standard deviation) that torch documents, None for a constant."""
    if "norm" in name or name.endswith(("in_proj_bias", "out_proj.bias")):
        return None
    if "embedding" in name:
        return -math.inf, math.inf, 1.0
    weight = tensors[name.replace("bias", "weight")]
    fan_out, fan_in = weight.shape
    bound = math.sqrt(6 / (fan_in + fan_out)) if is_in_projection(name) else fan_in**-0.5
    return -bound, bound, bound / math.sqrt(3)


@every_case
def test_a_module_alone_starts_as_torchs(shape, modules):
    torch.manual_seed(3)
    model = shape.spec.build(shape, 0.0)
    torch.manual_seed(3)
    for name, values in parameters_of_torch(shape, modules).items():
        np.testing.assert_array_equal(model.get_parameter(name).detach().numpy(), values)


@every_case
def test_the_distributions_are_torchs(shape, modules):
    torch.manual_seed(0)
    theirs = pooled([parameters_of_torch(shape, modules) for _ in range(MODELS)])
    models = [drawn(shape, seed) for seed in range(MODELS)]
    ours = pooled(models)
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in theirs.items()}
    for name, values in ours.items():
        assert values.dtype == np.float32
        expected = distribution(shape, name, models[0])
        if expected is None:
            assert (theirs[name] == theirs[name].flat[0]).all()
            np.testing.assert_array_equal(values, theirs[name])
            continue
        lowest, highest, std = expected
        both = values.astype(np.float64).ravel(), theirs[name].astype(np.float64).ravel()
        for sample in both:
            assert np.float32(lowest) <= sample.min() and sample.max() <= np.float32(highest), name
            # Five standard errors; that of the deviation depends on the kurtosis.
            kurtosis = 3 if std == 1 else 1.8
            assert abs(sample.mean()) < 5 * std / sample.size**0.5, name
            error = math.sqrt((kurtosis - 1) / (4 * sample.size))
            assert abs(sample.std() / std - 1) < 5 * error, name
        assert ks_2samp(*both).pvalue > 1e-4, name


@every_case
def test_the_order_is_that_of_the_named_parameters(shape, modules):
    tensors = drawn(shape, seed=3)
    assert list(tensors) == list(parameters_of_torch(shape, modules))  # torch's own order
    stream = RandomStream(3)
    for name, values in tensors.items():
        expected = distribution(shape, name, tensors)
        if name.startswith("layers.") and not name.startswith("layers.0."):
            numbers = tensors["layers.0." + name.split(".", 2)[2]].ravel()
        elif expected is None:
            numbers = np.full(values.size, float("norm" in name and name.endswith("weight")))
        elif "embedding" in name:
            numbers = stream.normal(values.size)
        else:
            numbers = expected[1] * (2 * stream.uniform(values.size) - 1)
        np.testing.assert_allclose(values.ravel(), numbers, rtol=1e-7, atol=0, err_msg=name)


@pytest.mark.parametrize("shape", [MLPArchitecture(5, 1), TRANSFORMER], ids=lambda s: s.name)
def test_a_probe_and_torchs_generator_leave_each_other_alone(shape):
    probe = Probe(shape, shape.spec.protocol(), 1, 2, 9)
    models = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        models.append(build_model(probe, ProbeStreams(1, 2, 9)))
        assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(*(model.parameters() for model in models), strict=True):
        assert torch.equal(one, other)


def build(shape, seed=0, **changes):
    """Return the module of a probe."""
    identity = seed, 0, 9
    protocol = shape.spec.protocol(vocab_size=shape.vocab_size, seq_len=shape.seq_len, **changes)
    return build_model(Probe(shape, protocol, *identity), ProbeStreams(*identity))


def named(model):
    return {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}


def linear_maps(tensors):
    """Return (name, weight, bias) of every linear map; query, key and value are one each."""
    for name, weight in tensors.items():
        if is_in_projection(name):
            biases = tensors[name.replace("weight", "bias")]
            yield from zip([name] * 3, np.split(weight, 3), np.split(biases, 3), strict=True)
        elif weight.ndim == 2 and "embedding" not in name:
            yield name, weight, tensors[name.replace("weight", "bias")]


@pytest.mark.parametrize("shape", [shape for shape, _ in CASES], ids=lambda s: s.name)
def test_orthogonal_maps_and_nothing_else(shape):
    ours, default = named(build(shape, init="orthogonal")), named(build(shape))
    maps = list(linear_maps(ours))
    for name, weight, bias in maps:
        rows, columns = weight.shape
        wide = weight.astype(float) if rows <= columns else weight.astype(float).T
        np.testing.assert_allclose(wide @ wide.T, 2 * np.eye(len(wide)), atol=1e-6, err_msg=name)
        assert (bias == 0).all(), name
    of_maps = {name for name, *_ in maps} | {name for name in ours if name.endswith("bias")}
    rest = [name for name in ours if name not in of_maps or "norm" in name]
    assert len(maps) == (1 + shape.num_layers if shape.spec is MLP_SPEC else 1 + 10 * 3)
    assert len(rest) == (0 if shape.spec is MLP_SPEC else 2 + 6 * 3)
    for name in rest:
        np.testing.assert_array_equal(ours[name], default[name], err_msg=name)
    weights = [weight.tobytes() for _, weight, _ in maps]
    assert len(set(weights)) == len(weights)  # no copies, of layers neither


@pytest.mark.parametrize("shape", [shape for shape, _ in CASES], ids=lambda s: s.name)
def test_orthogonal_weights_are_parameters_like_others_and_the_same_again(shape):
    model, same = (build(shape, init="orthogonal") for _ in range(2))
    assert all(p.is_leaf and p.requires_grad for p in model.parameters())
    for one, other in zip(model.parameters(), same.parameters(), strict=True):
        assert torch.equal(one, other)
    tokens = torch.zeros(1, shape.seq_len, dtype=torch.int64)
    model(tokens).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    other = named(build(shape, seed=1, init="orthogonal"))
    for (name, one, _), (_, another, _) in zip(
        linear_maps(named(model)), linear_maps(other), strict=True
    ):
        assert not np.array_equal(one, another), name


@pytest.mark.parametrize("shape", [(24, 24), (9, 40), (40, 9), (1, 7), (1, 1)], ids=str)
def test_the_orthogonal_distribution_is_torchs(shape):
    torch.manual_seed(0)
    ours, theirs = [], []
    for seed in range(MODELS):
        for drawn, draw in (
            (ours, lambda weight, seed=seed: draw_orthogonal(weight, RandomStream(seed))),
            (theirs, lambda weight: nn.init.orthogonal_(weight, nn.init.calculate_gain("relu"))),
        ):
            weight = torch.empty(shape)
            draw(weight)
            drawn.append(weight.numpy().astype(float))
    ours, theirs = np.array(ours), np.array(theirs)
    for sample in (ours, theirs):
        # The rows or columns have squares that sum to 2, so the entries have this mean square.
        assert np.mean(sample**2) == pytest.approx(2 / max(shape), rel=1e-6)
        assert abs(sample.mean()) < 5 * (2 / max(shape) / sample.size) ** 0.5
    assert ks_2samp(ours.ravel(), theirs.ravel()).pvalue > 1e-4
    # Signs too: a QR decomposition alone would favour some on the diagonal.
    assert ks_2samp(ours[:, 0, 0], theirs[:, 0, 0]).pvalue > 1e-4


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (33, 33), (70, 33), (200, 100)], ids=str)
def test_orthonormal_columns_are_those_of_the_qr_decomposition(shape):
    for seed in range(5):
        x = RandomStream(seed).normal(math.prod(shape)).reshape(shape)
        before = x.copy()
        q, r = np.linalg.qr(x)
        np.testing.assert_allclose(orthonormal_columns(x), q * np.sign(np.diag(r)), atol=1e-12)
        np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 64, 1001])
def test_the_ordered_sum(count):
    x = np.random.default_rng(count).standard_normal((count, 3))
    before = x.copy()
    np.testing.assert_allclose(ordered_sum(x), [math.fsum(c) for c in x.T], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(x, before)
