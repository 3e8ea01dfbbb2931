"""The decoder-only model's sizes, budgets and first weights."""

import itertools
import math

import numpy as np
import pytest
import torch
from gpt2 import as_ours, gpt2, named
from scipy.stats import ks_2samp
from torch import nn

from dataset.random_stream import RandomStream
from training.errors import UserError
from training.loop import evaluate
from training.probe import Probe
from training.start import build_model, start_probe
from training.streams import ProbeStreams
from transformer_experiments.decoder_only_utils import (
    OPTIONS,
    SPEC,
    DecoderOnlyArchitecture,
    solve,
)

COMBINATIONS = list(itertools.product(*OPTIONS.values()))


# --- Sizes and budgets -----------------------------------------------------------------------


def built_size(shape):
    return sum(parameter.numel() for parameter in SPEC.build(shape, 0.0).parameters())


@pytest.mark.parametrize(("num_layers", "count"), [(1, 51_968), (2, 101_952), (3, 151_936)])
def test_the_count_without_options(num_layers, count):
    shape = DecoderOnlyArchitecture(64, 256, 4, num_layers)
    assert shape.num_parameters == built_size(shape) == count
    assert sum(parameter.numel() for parameter in gpt2(shape).parameters()) == count


@pytest.mark.parametrize("options", COMBINATIONS, ids=" ".join)
def test_every_combination_has_its_own_count_and_name(options):
    for task in ((10, 10), (3, 6), (2, 1)):
        shape = DecoderOnlyArchitecture(12, 7, 3, 2, *options, *task)
        assert shape.num_parameters == built_size(shape)
    given = [v for v, choices in zip(options, OPTIONS.values(), strict=True) if v != choices[0]]
    assert shape.name.split() == ["d12", "ff7", "h3", "x2", *given]
    columns = shape.columns()
    assert [columns[name] for name in OPTIONS] == list(options)


@pytest.mark.parametrize("params", [10_000, 34_342, 1_000_000])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("heads", [1, 8])
@pytest.mark.parametrize("options", [{}, {"untied": True, "position": "rope", "norm": "post"}])
def test_every_budget_is_the_true_count(params, layers, heads, options):
    shape = solve(params, 10, 10, layers, heads, **options)
    assert (shape.num_heads, shape.num_layers) == (heads, layers)
    assert abs(shape.num_parameters - params) <= 0.01 * params
    # All that fit, one by one: none has a d_ff nearer to 4 d_model.
    step = 2 * heads if options else heads
    fitting = []
    for size in range(step, 4 * shape.hidden_size, step):
        smallest = solve(None, 10, 10, layers, heads, size, 1, **options)
        per_unit = layers * (2 * size + 1)
        width = 1 + round((params - smallest.num_parameters) / per_unit)
        error = smallest.num_parameters + (width - 1) * per_unit - params
        if width >= 1 and abs(error) <= 0.01 * params:
            fitting.append(abs(math.log(width / (4 * size))))
    assert min(fitting) == abs(math.log(shape.d_ff / (4 * shape.hidden_size)))


@pytest.mark.parametrize(
    ("message", "budget", "arguments"),
    [
        ("--position rope needs an even head width: .* make it 3", None, (1, 4, 12, 8)),
        ("does not divide", None, (1, 5, 12, 8)),
        ("--heads must be at least 1", 9000, (1, 0)),
        ("--layers must be at least 1", 9000, (0, 1)),
        ("--d-ff must be at least 1", 9000, (1, 1, 8, 0)),
        ("give --params", None, (1, 1, 8)),
        ("smallest possible budget is", 100, (1, 2)),
    ],
)
def test_what_does_not_exist_is_refused_in_one_line(message, budget, arguments):
    with pytest.raises(UserError, match=message) as error:
        solve(budget, 10, 10, *arguments, position="rope")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_that_is_none_is_refused(name):
    with pytest.raises(UserError, match=f"--{name} must be .* or .*, got other"):
        DecoderOnlyArchitecture(8, 8, 1, 1, **{name: "other"})


# --- First weights ---------------------------------------------------------------------------


def build(shape, **changes):
    protocol = SPEC.protocol(vocab_size=shape.vocab_size, seq_len=shape.seq_len, **changes)
    identity = 0, 0, 1
    return build_model(Probe(shape, protocol, *identity), ProbeStreams(*identity))


def drawn(shape, seed):
    model = SPEC.build(shape, 0.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)  # of which nothing may remain
    model.draw_weights(RandomStream(seed))
    return {name: parameter.detach().numpy() for name, parameter in named(model).items()}


def deviation_of(shape, name):
    """Return GPT-2's standard deviation, None for a constant."""
    if name.endswith("bias") or "norm" in name:
        return None
    is_residual = name.endswith(("out_proj.weight", "linear2.weight"))
    return 0.02 / math.sqrt(2 * shape.num_layers) if is_residual else 0.02


@pytest.mark.parametrize("head", OPTIONS["head"])
def test_first_weights_are_distributed_as_gpt2s(head):
    shape = DecoderOnlyArchitecture(24, 37, 3, 3, head)
    torch.manual_seed(0)
    ours, theirs = (
        [drawn(shape, seed) for seed in range(30)],
        [named(gpt2(shape)) for _ in "x" * 30],
    )
    for name in ours[0]:
        mine = np.stack([tensors[name] for tensors in ours])
        other = np.stack([as_ours(name, tensors).detach().numpy() for tensors in theirs])
        assert mine.shape == other.shape and mine.dtype == np.float32
        deviation = deviation_of(shape, name)
        if deviation is None:
            assert (mine == other).all() and (mine == mine.flat[0]).all()
            continue
        for sample in (mine.astype(float).ravel(), other.astype(float).ravel()):
            # Five standard errors of mean, deviation and kurtosis of normal numbers.
            size = sample.size
            assert abs(sample.mean()) < 5 * deviation / size**0.5, name
            assert abs(sample.std() / deviation - 1) < 5 / (2 * size) ** 0.5, name
            kurtosis = np.mean((sample / deviation) ** 4)
            assert abs(kurtosis - 3) < 5 * (96 / size) ** 0.5, name
        assert ks_2samp(mine.ravel(), other.ravel()).pvalue > 1e-4, name


@pytest.mark.parametrize("options", COMBINATIONS, ids=" ".join)
def test_first_weights_are_the_streams_next_numbers(options):
    shape = DecoderOnlyArchitecture(12, 7, 3, 2, *options)
    stream = RandomStream(4)
    for name, values in drawn(shape, 4).items():
        deviation = deviation_of(shape, name)
        if deviation is None:
            expected = np.full(values.size, float(name.endswith("weight")))
        else:
            expected = deviation * stream.normal(values.size)
        np.testing.assert_allclose(values.ravel(), expected, rtol=1e-7, atol=0, err_msg=name)


def test_orthogonal_first_weights():
    for options in (("tied",), ("untied", "rope", "post", "relu")):
        shape = DecoderOnlyArchitecture(12, 20, 3, 2, *options)
        ours, default = named(build(shape, init="orthogonal")), named(build(shape))
        maps = {f"{n}.weight" for n, m in build(shape).named_modules() if isinstance(m, nn.Linear)}
        assert len(maps) == 8 + (options[0] == "untied")
        for name, weight in ours.items():
            if name in maps:
                wide = weight if weight.shape[0] <= weight.shape[1] else weight.T
                product = (wide @ wide.T).detach()
                torch.testing.assert_close(product, 2 * torch.eye(len(wide)), rtol=0, atol=1e-5)
            elif name.endswith("bias") and "norm" not in name:
                assert (weight == 0).all()
            else:
                assert torch.equal(weight, default[name])


def test_it_begins_with_the_loss_of_guessing():
    probe = Probe(DecoderOnlyArchitecture(64, 256, 4, 1), SPEC.paper, 0, 0, 64)
    start = start_probe(probe)
    loss, accuracy = evaluate(start.module, *start.tensors())
    assert abs(loss - math.log(10)) < 0.05
    assert accuracy < 0.3
