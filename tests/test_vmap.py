"""The vmap form of the benchmark against the modules' own passes, one model at a time."""

import pytest
import torch
from vmap_step import TOLERANCE, VmapModels, largest_difference

from engines.stacked import StackedModels
from mlp_experiments.mlp_utils import MLPArchitecture
from training.probe import start_probe
from training.probe_types import Probe
from training.session import train_stack
from training.task import IGNORED
from transformer_experiments.transformer_utils import TransformerArchitecture

CASES = [
    (MLPArchitecture(0, 0), 0.0),
    (MLPArchitecture(20, 2), 0.0),
    (MLPArchitecture(20, 2), 0.3),
    (TransformerArchitecture(16, 20, 4, 2), 0.0),
    (TransformerArchitecture(16, 20, 4, 2), 0.3),
]


def starts_of(architecture, dropout, sizes=(40, 33, 64)):
    protocol = architecture.spec.protocol(dropout=dropout, max_epochs=2)
    probes = [Probe(architecture, protocol, 0, repeat, n) for repeat, n in enumerate(sizes)]
    starts = [start_probe(probe) for probe in probes]
    for start in starts:
        start.targets[::3, 1::2] = IGNORED
    return starts


@pytest.mark.parametrize("form", [StackedModels, VmapModels])
@pytest.mark.parametrize(("architecture", "dropout"), CASES)
def test_logits_and_gradients_are_the_modules_own(architecture, dropout, form):
    starts = starts_of(architecture, dropout)
    for sizes in ((32, 32, 32), (32, 1, 7)):  # full batches, and short last ones
        assert largest_difference(form(starts), starts, sizes) < TOLERANCE


@pytest.mark.parametrize(("architecture", "dropout"), CASES)
def test_it_trains_as_the_hand_written_form_does(architecture, dropout):
    outcomes = []
    for form in (StackedModels, VmapModels):
        starts = starts_of(architecture, dropout)
        outcomes.append(train_stack(form(starts), starts))
    for hand, mapped in zip(*outcomes, strict=True):
        assert mapped.loss == pytest.approx(hand.loss, rel=1e-4)
        assert mapped.epochs == hand.epochs


def test_masks_do_not_outlive_the_pass():
    starts = starts_of(*CASES[-1])
    stack = VmapModels(starts)
    before = [parameter.clone() for parameter in stack._module.parameters()]
    train_stack(stack, starts)
    layers = [layer for layer, _ in stack._module.dropout_sites()]
    assert len(layers) == 12
    assert all(layer.step_mask is None for layer in layers)
    assert all(map(torch.equal, before, stack._module.parameters()))


@pytest.mark.parametrize(("architecture", "dropout"), CASES)
def test_a_step_takes_nothing_from_the_host(architecture, dropout):
    """What a captured graph needs, checked without CUDA as in test_stacked.py."""
    stack = VmapModels(starts_of(architecture, dropout), host_masks=False)
    stack._module.to("meta")
    for owner in filter(None, (stack, stack._masks)):
        for name, value in vars(owner).items():
            if isinstance(value, torch.Tensor):
                setattr(owner, name, value.to("meta"))
    stack._step([])
    assert stack._flat.device.type == "meta"
