"""Stacked models against the reference loop, and against themselves in other company."""

import dataclasses
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from flat_loop import train_flat
from protocols import ARCHITECTURES, DECODER_ONLY, ENTRIES, SETTINGS, SIZES, probe_of
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toy_lookup import LookupArchitecture
from toy_reader import PairArchitecture

from engines.device_masks import DeviceMasks
from engines.engine import CUDA_LANES, StackedEngine
from engines.forward import VmapForward
from engines.stacked import StackedModels, stack_rows
from mlp_experiments.mlp_utils import MLPArchitecture
from training.optimizers import OPTIMIZERS
from training.session import train_stack
from training.start import start_probe
from training.streams import ProbeStreams
from transformer_experiments.decoder_only_utils import DecoderOnlyArchitecture
from transformer_experiments.transformer_utils import TransformerArchitecture

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA"),
    ),
]

CASES = [
    (MLPArchitecture(0, 0), (64, 5), {}),
    (MLPArchitecture(49, 1), (70, 20, 33), {}),
    (MLPArchitecture(49, 1), (70, 20), {"schedule": "cosine", "warmup_epochs": 1, "patience": 0}),
    (MLPArchitecture(33, 4), (5, 33, 64), {"dropout": 0.1}),
    (MLPArchitecture(33, 4), (5, 33, 64), {"loss": "margin", "optimizer": "sgd"}),
    (TransformerArchitecture(32, 38, 4, 2), (10, 40, 33), {}),
    (TransformerArchitecture(32, 38, 4, 2), (10, 40, 2), {"dropout": 0.0, "grad_clip": 0.0}),
    (DecoderOnlyArchitecture(24, 38, 4, 2), (10, 40, 33), {}),
    (DecoderOnlyArchitecture(24, 38, 4, 2, "untied", "rope", "post", "relu"), (10, 40, 2), {}),
    (LookupArchitecture(64), (10, 40, 33), {}),  # models that the project does not know
    (PairArchitecture(), (10, 40, 2), {}),
]
# Every setting, and of the tables' entries those that it knows.
KNOWN = {
    name: {**changes, "max_epochs": 12}
    for name, changes in ENTRIES.items()
    if OPTIMIZERS[changes.get("optimizer", "adamw")].stacked
}
EVERY_SETTING = [
    pytest.param(architecture, SIZES, changes, id=f"{architecture.spec.name}-{name}")
    for architecture in [*ARCHITECTURES, DECODER_ONLY]
    for name, changes in {**SETTINGS, **KNOWN}.items()
]


def probes_of(architecture, sizes, changes, max_epochs=30):
    changes = {"max_epochs": max_epochs, **changes}
    return [probe_of(architecture, n, repeat, **changes) for repeat, n in enumerate(sizes)]


def stack_of(probes, device="cpu", host_masks=True, lanes=None):
    return StackedModels([start_probe(probe) for probe in probes], device, host_masks, lanes)


def outcomes_of(stack, probes, *on_epoch):
    """Train ``stack``, made of ``probes``; return the outcomes without their seconds."""
    starts = [start_probe(probe) for probe in probes]
    return [dataclasses.replace(o, seconds=0.0) for o in train_stack(stack, starts, *on_epoch)]


def trained(probes, device="cpu"):
    """Return the outcomes of the engine for ``device``, without their seconds."""
    return outcomes_of(StackedEngine(device).start([start_probe(p) for p in probes]), probes)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("architecture", "sizes", "changes"), [*CASES, *EVERY_SETTING])
def test_follows_the_reference(architecture, sizes, changes, device):
    probes = probes_of(architecture, sizes, changes)
    histories = [[] for _ in probes]
    stack = stack_of(probes, device)
    outcomes = outcomes_of(stack, probes, lambda index, record: histories[index].append(record))
    for probe, outcome, history in zip(probes, outcomes, histories, strict=True):
        reference = []
        expected, model = train_flat(probe, reference.append)
        assert (outcome.epochs, outcome.stop_reason) == (expected.epochs, expected.stop_reason)
        assert outcome.memorized == expected.memorized
        losses = [[record.loss for record in records] for records in (history, reference)]
        tolerance = 1e-4 if probe.protocol.dtype == "float32" else 1e-7  # masks are float32
        np.testing.assert_allclose(*losses, rtol=tolerance)
        rates = [[record.learning_rate for record in records] for records in (history, reference)]
        np.testing.assert_allclose(*rates, rtol=1e-12)
        weights = stack.state_dict(probe.repeat)
        kinds = [{k: v.dtype for k, v in w.items()} for w in (weights, model.state_dict())]
        assert kinds[0] == kinds[1]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "architecture",
    [MLPArchitecture(49, 1), TransformerArchitecture(16, 20, 2, 1)],
    ids=lambda a: a.spec.name,
)
def test_a_probe_does_not_know_its_neighbours(architecture, device):
    probes = probes_of(architecture, (40, 70, 33, 3), {}, 12)
    together = trained(probes, device)
    for probe, outcome in zip(probes, together, strict=True):
        assert trained([probe], device) == [outcome]
    assert trained(probes[::-1], device)[::-1] == together


@pytest.mark.parametrize(
    ("batch_size", "dropout", "n", "rows"),
    [
        *[(32, 0.0, 5, 32), (256, 0.0, 5, 256), (257, 0.0, 5, 256), (257, 0.0, 300, 257)],
        *[(100_000, 0.0, n, rows) for n, rows in ((16, 256), (256, 256), (257, 512), (2049, 4096))],
        *[(1000, 0.0, 600, 1000), (1000, 0.0, 3000, 1000), (1000, 0.1, 16, 1000)],
    ],
)
def test_a_batch_has_little_more_rows_than_there_are(batch_size, dropout, n, rows):
    probe = probe_of(MLPArchitecture(8, 1), n, batch_size=batch_size, dropout=dropout)
    assert stack_rows(probe.protocol, n) == rows
    assert stack_of([probe])._order.shape[2] == rows


def test_probes_whose_batches_have_other_rows_are_stacked_apart():
    probes = probes_of(MLPArchitecture(8, 1), (3, 300, 40, 2), {"batch_size": 100_000}, 4)
    records = []
    together = StackedEngine().train(probes, records.append)
    for probe, (outcome, weights) in zip(probes, together, strict=True):
        [(alone, own)] = StackedEngine().train([probe])
        assert dataclasses.replace(outcome, seconds=alone.seconds) == alone
        assert all(map(torch.equal, weights().values(), own().values()))
        expected, _ = train_flat(probe)
        assert outcome.loss == pytest.approx(expected.loss, rel=1e-4)
    assert len(records) == together[0][0].epochs


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")
@pytest.mark.parametrize(
    "architecture",
    [
        TransformerArchitecture(32, 380, 4, 1),  # 34,342 parameters, 16 models of which are
        TransformerArchitecture(64, 768, 32, 1),  # not all aligned alike without padding
        TransformerArchitecture(128, 1550, 16, 1),
        DecoderOnlyArchitecture(64, 256, 4, 2),
    ],
    ids=lambda a: f"{a.spec.name} {a.name}",
)
def test_nor_do_large_ones_on_a_gpu(architecture):
    probes = probes_of(architecture, (300, 40, 129), {}, 6)
    together = trained(probes, "cuda")
    assert [trained([probe], "cuda")[0] for probe in probes] == together
    others = probes_of(architecture, (20,) * 13, {}, 6)
    assert trained([*others, *probes], "cuda")[13:] == together  # other lanes, all in use


class Shapes(TorchDispatchMode):
    """Notes every operation on numbers of the models, with the shapes that it is given."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        if any(x.dtype == torch.float32 for x in given):
            self.seen.add((str(function), *(tuple(x.shape) for x in given)))
        return function(*args, **(kwargs or {}))


def shapes_of(probes, lanes):
    """Return the operations of an epoch and an evaluation with their shapes."""
    starts = [start_probe(probe) for probe in probes]
    stack = StackedModels(starts, host_masks=False, lanes=lanes)
    epochs = [next(start.epochs()) for start in starts]
    with Shapes() as shapes:
        stack.train_epoch(epochs)
        assert len(stack.evaluate()) == len(probes)
    return shapes.seen


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, DECODER_ONLY], ids=lambda a: a.spec.name)
def test_the_shapes_do_not_depend_on_company(architecture):
    """A GPU's libraries choose their kernels by the shapes, and so the bits."""
    companies = [probes_of(architecture, sizes, {}) for sizes in ((3,), (40, 270), (33, 2, 5))]
    fixed, *others = (shapes_of(probes, CUDA_LANES) for probes in companies)
    products = {shape for name, *shapes in fixed if "bmm" in name for shape in shapes}
    assert {shape[0] % CUDA_LANES for shape in products} == {0}
    assert others == [fixed, fixed]
    free, *others = (shapes_of(probes, None) for probes in companies)
    assert free not in others


@pytest.mark.parametrize(("architecture", "sizes", "changes"), CASES)
def test_idle_lanes_change_nothing(architecture, sizes, changes):
    probes = probes_of(architecture, sizes, changes, 8)
    stack = stack_of(probes, lanes=5)
    idle = stack._flat[len(probes) :].clone()
    assert outcomes_of(stack, probes) == outcomes_of(stack_of(probes), probes)
    assert torch.equal(stack._flat[len(probes) :], idle) and idle.isfinite().all()


@pytest.mark.parametrize("lanes", [None, 4])
def test_one_diverging_model_leaves_the_others_alone(lanes):
    probes = probes_of(MLPArchitecture(20, 2), (40, 33), {}, 10)
    stack = stack_of(probes, lanes=lanes)
    stack._flat[0, 0] = float("nan")
    broken, healthy = outcomes_of(stack, probes)
    assert broken.stop_reason == "diverged"
    assert not broken.memorized
    assert [healthy] == trained([probes[1]])


def test_products_are_exact_whatever_was_set_before():
    torch.set_float32_matmul_precision("medium")
    stack_of(probes_of(MLPArchitecture(4, 1), (2,), {}))
    assert torch.get_float32_matmul_precision() == "highest"
    assert not torch.backends.cuda.matmul.allow_tf32


def test_hashed_masks_have_the_rate_and_no_repeats():
    streams = [ProbeStreams(0, repeat, 9).dropout_masks(0.1) for repeat in range(3)]
    masks = DeviceMasks(streams, 3, 20_001, torch.device("cpu"))
    steps = torch.tensor([0, 0, 5])
    first = masks.draw([True] * 3, steps)
    assert first.shape == (3, 20_001)
    kept = first > 0
    assert torch.allclose(first[kept], torch.tensor(streams[0].scale))
    # Four standard errors of a share of 0.1 among 20,001.
    assert ((~kept).float().mean(1) - 0.1).abs().max() < 4 * (0.09 / 20_001) ** 0.5
    second = masks.draw([True] * 3, steps + 1)
    assert torch.equal(first, masks.draw([True] * 3, steps))
    pairs = [(kept[0], kept[1]), (kept[0], second[0] > 0), (kept[0, 1:], kept[0, :-1])]
    for a, b in pairs:
        both = (~a & ~b).float().mean()
        assert abs(both - 0.01) < 4 * (0.0099 / 20_001) ** 0.5
    own = [ProbeStreams(0, 2, 9).dropout_masks(0.1)]
    alone = DeviceMasks(own, 2, 20_001, torch.device("cpu"))  # beside a lane without a model
    assert torch.equal(alone.draw([True], steps[[2, 0]])[0], first[2])


def state_of(stack):
    """Every tensor that a step of ``stack`` can touch, by owner and name."""
    owners = [stack] if stack._masks is None else [stack, stack._masks]
    return [
        (owner, name, value)
        for owner in owners
        for name, value in vars(owner).items()
        if isinstance(value, torch.Tensor)
    ]


@pytest.mark.parametrize(("architecture", "sizes", "changes"), CASES)
def test_a_step_takes_nothing_from_the_host(architecture, sizes, changes):
    """What a captured graph needs, checked without CUDA.

    Tensors of the meta device have no data: a step that looked at one or mixed it with a tensor
    of the host would fail.
    """
    stack = stack_of(probes_of(architecture, sizes, changes), host_masks=False)
    for owner, name, value in state_of(stack):
        setattr(owner, name, value.to("meta"))
    if isinstance(stack._forward, VmapForward):
        stack._forward._module.to("meta")
    stack._step([])
    assert {value.device.type for _, _, value in state_of(stack)} == {"meta"}


@pytest.mark.parametrize(("architecture", "sizes", "changes"), CASES)
def test_the_state_stays_where_it_is(architecture, sizes, changes):
    """A captured graph reads and writes the addresses that it was captured with."""
    probes = probes_of(architecture, sizes, changes, 3)
    stack = stack_of(probes, host_masks=False)
    before = [(name, value.data_ptr()) for _, name, value in state_of(stack)]
    outcomes_of(stack, probes)
    assert before == [(name, value.data_ptr()) for _, name, value in state_of(stack)]


def test_capturing_leaves_no_trace(monkeypatch):
    """The steps that warm up and record a graph are undone, whatever it is that replays them."""
    probes = probes_of(TransformerArchitecture(16, 20, 2, 1), (40, 33, 3), {}, 5)
    expected = outcomes_of(stack_of(probes, host_masks=False), probes)
    stack = stack_of(probes, host_masks=False)

    class Graph:
        def replay(self):
            stack._step([])

    for name in ("Stream", "current_stream", "stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, MagicMock())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    stack._use_graph = True
    assert outcomes_of(stack, probes) == expected


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA")
@pytest.mark.parametrize(("architecture", "sizes", "changes"), CASES)
def test_the_captured_graph_takes_the_same_steps(architecture, sizes, changes):
    probes = probes_of(architecture, sizes, changes, 20)
    with_graph, without = (stack_of(probes, "cuda", host_masks=False) for _ in range(2))
    without._use_graph = False
    assert with_graph._use_graph
    assert outcomes_of(with_graph, probes) == outcomes_of(without, probes)
