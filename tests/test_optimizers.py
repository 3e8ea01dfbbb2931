"""The optimisers: against torch's own and a published SOAP, by the same gradients and rates."""

import copy

import pytest
import torch
from flat_loop import train_flat
from protocols import ARCHITECTURES, DECODER_ONLY, ENTRIES, probe_of
from pytorch_optimizer import SOAP

from engines.engine import ReferenceEngine
from mlp_experiments.mlp_utils import MLPArchitecture
from training.loop import evaluate
from training.optimizers import OPTIMIZERS, hidden_matrices
from training.start import start_probe
from transformer_experiments.decoder_only_utils import DecoderOnlyArchitecture
from transformer_experiments.transformer_utils import TransformerArchitecture

DECAY, BETAS, EPSILON, MOMENTUM, INTERVAL = 0.1, (0.8, 0.95), 1e-5, 0.7, 3
STEPS = 14
UNTIED = DecoderOnlyArchitecture(16, 20, 2, 1, "untied")
# The matrices between embeddings and output layer.
HIDDEN = {
    MLPArchitecture(0, 0): (),
    MLPArchitecture(49, 1): ("linears.0",),
    MLPArchitecture(12, 3): ("linears.0", "linears.1", "linears.2"),
    TransformerArchitecture(16, 20, 2, 1): (
        *(f"layers.0.{a}.{w}" for a in ("self_attn", "multihead_attn") for w in ("in_", "out_")),
        "layers.0.linear1",
        "layers.0.linear2",
    ),
    **{
        architecture: ("layers.0.attention", "layers.0.linear1", "layers.0.linear2")
        # The tied head is an embedding, whatever the width: a row per logit is no sign of a head.
        for architecture in (DECODER_ONLY, UNTIED, DecoderOnlyArchitecture(10, 20, 2, 1))
    },
}


def hidden_names(architecture, model):
    prefixes = HIDDEN[architecture]
    return [n for n, _ in model.named_parameters() if n.startswith(prefixes) and "bias" not in n]


def groups_of(model, chosen):
    """Return the ``chosen`` parameters, each with the decay that it should have."""
    return [
        {"params": [p], "weight_decay": 0.0 if "bias" in name or "norm" in name else DECAY}
        for name, p in model.named_parameters()
        if name in chosen
    ]


def oracles(name, architecture, model):
    """Return the optimisers, not ours, that are to do what ours does."""
    everything = [n for n, _ in model.named_parameters()]
    if name == "sgd":
        return [torch.optim.SGD(groups_of(model, everything), momentum=MOMENTUM)]
    if name == "soap":
        settings = {"betas": BETAS, "eps": EPSILON, "precondition_frequency": INTERVAL}
        return [SOAP(groups_of(model, everything), **settings)]
    hidden = hidden_names(architecture, model) if name == "muon" else []
    others = groups_of(model, set(everything) - set(hidden))
    found = [torch.optim.AdamW(others, betas=BETAS, eps=EPSILON)]
    if hidden:
        settings = {"momentum": MOMENTUM, "adjust_lr_fn": "match_rms_adamw"}
        found.append(torch.optim.Muon(groups_of(model, hidden), **settings))
    return found


def protocol_of(architecture, name, **changes):
    given = {
        "beta1": BETAS[0],
        "beta2": BETAS[1],
        "epsilon": EPSILON,
        "momentum": MOMENTUM,
        "soap_interval": INTERVAL,
    }
    read = {setting: given[setting] for setting in OPTIMIZERS[name].settings}
    return architecture.spec.protocol(optimizer=name, weight_decay=DECAY, **read, **changes)


@pytest.mark.parametrize("architecture", HIDDEN, ids=lambda a: f"{a.spec.name} {a.name}")
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_published_steps(name, architecture):
    """Decay and learning rate reach every parameter."""
    protocol = protocol_of(architecture, name)
    model = start_probe(probe_of(architecture, 2)).module
    other = copy.deepcopy(model)
    ours, theirs = [OPTIMIZERS[name].start(model, protocol)], oracles(name, architecture, other)
    generator = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        pairs = list(zip(model.parameters(), other.parameters(), strict=True))
        for mine, its in pairs:
            mine.grad = torch.randn(mine.shape, generator=generator)
            its.grad = mine.grad.clone()
        for optimizer in (*ours, *theirs):
            for group in optimizer.param_groups:
                group["lr"] = 0.02 / (1 + step)
            optimizer.step()
        for mine, its in pairs:
            torch.testing.assert_close(mine, its, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("architecture", HIDDEN, ids=lambda a: f"{a.spec.name} {a.name}")
def test_which_matrices_are_hidden(architecture):
    model = start_probe(probe_of(architecture, 2)).module
    names = {p: name for name, p in model.named_parameters()}
    found = hidden_matrices(model, architecture.spec.protocol())
    assert [names[p] for p in found] == hidden_names(architecture, model)


@pytest.mark.parametrize("changes", ENTRIES.values(), ids=ENTRIES.keys())
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, DECODER_ONLY], ids=lambda a: a.spec.name)
def test_the_engine_takes_the_steps_of_the_flat_loop(architecture, changes):
    probe = probe_of(architecture, 45, max_epochs=3, **changes)
    records, expected_records = [], []
    expected, module = train_flat(probe, expected_records.append)
    [(outcome, weights)] = ReferenceEngine().train([probe], records.append)
    assert records == expected_records
    assert (outcome.loss, outcome.accuracy) == (expected.loss, expected.accuracy)
    assert all(map(torch.equal, weights().values(), module.state_dict().values()))
    assert {str(value.dtype) for value in weights().values()} == {f"torch.{probe.protocol.dtype}"}
    start = start_probe(probe)
    assert outcome.loss < evaluate(start.module, *start.tensors())[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_divergence_is_a_verdict(name):
    probe = probe_of(ARCHITECTURES[0], 45, optimizer=name, learning_rate=1e10, patience=0)
    result, _ = train_flat(probe)
    assert (result.stop_reason, result.memorized) == ("diverged", False)


def test_float64_begins_where_float32_does():
    single, double = (
        start_probe(probe_of(DECODER_ONLY, 3, dtype=dtype)).module
        for dtype in ("float32", "float64")
    )
    for mine, its in zip(single.parameters(), double.parameters(), strict=True):
        assert torch.equal(mine.double(), its)
    inputs, _ = start_probe(probe_of(DECODER_ONLY, 3)).tensors()
    torch.testing.assert_close(single.eval()(inputs).double(), double.eval()(inputs))
