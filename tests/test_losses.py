"""The losses: against torch's own, whatever weights their tokens have, and by their own name."""

import copy
import itertools

import pytest
import torch
from flat_loop import train_flat
from protocols import ARCHITECTURES, DECODER_ONLY, probe_of
from scripts import BINARY_SEARCH, TRAIN_MLP, run_script
from torch.nn import functional as F

from dataset.encoding import IGNORED
from engines.engine import ReferenceEngine
from training.loop import evaluate, logits_in_blocks
from training.losses import LOSSES, Loss
from training.optimizers import parameter_groups
from training.protocol import Protocol
from training.start import start_probe

ROWS, CLASSES = 40, 7
# Per token, from logits (R, C) and targets (R,); torch divides the hinges by their number.
ORACLES = {
    "cross_entropy": lambda z, y: -z.log_softmax(1).gather(1, y.unsqueeze(1)).squeeze(1),
    "margin": lambda z, y: 0.5 * CLASSES * F.multi_margin_loss(z, y, p=2, reduction="none"),
}


def wrong_tokens_alone(weights, logits, targets, protocol):
    """Give the tokens that are wrong twice their weight, and the others none."""
    return torch.where(logits.argmax(-1) == targets, 0.0, 2.0 * weights.clamp(min=1))


CHANGING = Loss(LOSSES["cross_entropy"].per_token, wrong_tokens_alone)


@pytest.mark.parametrize("name", LOSSES)
def test_each_token_is_torchs(name):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(ROWS, CLASSES, generator=generator, dtype=torch.float64).requires_grad_()
    targets = torch.randint(CLASSES, (ROWS,), generator=generator)
    some = targets.clone()
    some[::3] = IGNORED
    losses = LOSSES[name].per_token(logits, some, Protocol())
    (gradient,) = torch.autograd.grad(losses.sum(), logits)
    expected = ORACLES[name](logits, targets) * (some != IGNORED)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(gradient, expected_gradient)
    assert losses[::3].eq(0).all() and gradient[::3].eq(0).all()


@pytest.mark.parametrize("architecture", [*ARCHITECTURES, DECODER_ONLY], ids=lambda a: a.spec.name)
def test_the_loss_of_the_logs_is_cross_entropy(architecture):
    """And what is kept is of its lowest, whatever was minimised."""
    records = []
    probe = probe_of(architecture, 40, loss="margin", max_epochs=8, learning_rate=0.05, patience=0)
    result, module = train_flat(probe, records.append)
    inputs, targets = start_probe(probe).tensors()
    with torch.no_grad():
        logits = module.eval()(inputs)
    expected = F.cross_entropy(logits.flatten(0, 1), targets.flatten()).item()
    assert result.loss == pytest.approx(expected, rel=1e-5)
    assert result.loss == pytest.approx(min(record.loss for record in records), rel=1e-6)
    other, _ = train_flat(probe_of(architecture, 40, max_epochs=8, learning_rate=0.05, patience=0))
    assert other.loss != result.loss


def by_hand(probe, epochs):
    """Train as CHANGING says, with torch alone, and yield the epochs' weights of the tokens."""
    start, protocol = start_probe(probe), probe.protocol
    model, (inputs, targets) = start.module, start.tensors()
    optimizer = torch.optim.AdamW(parameter_groups(model, protocol.weight_decay))
    weights = torch.ones(targets.shape)
    for order, rates in itertools.islice(start.epochs(), epochs):
        for rows, rate in zip(torch.from_numpy(order).split(32), rates, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate
            losses = F.cross_entropy(
                model(inputs[rows]).flatten(0, 1), targets[rows].flatten(), reduction="none"
            )
            counted = int((targets[rows] != IGNORED).sum())
            optimizer.zero_grad()
            ((losses * weights[rows].flatten()).sum() / counted).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), protocol.grad_clip)
            optimizer.step()
        is_right = torch.cat(list(logits_in_blocks(model, inputs))).argmax(-1) == targets
        model.train()
        weights = torch.where(is_right, 0.0, 2.0 * weights.clamp(min=1))
        yield evaluate(copy.deepcopy(model), inputs, targets)[0], weights


@pytest.mark.parametrize(
    "architecture", [ARCHITECTURES[0], DECODER_ONLY], ids=lambda a: a.spec.name
)
def test_weights_change_between_epochs(architecture):
    """In the flat loop as by hand, and in the reference engine as in the flat loop."""
    changes = {"loss": "test_losses:CHANGING", "max_epochs": 5, "patience": 0, "dropout": 0.0}
    probe = probe_of(architecture, 45, **changes)
    records = []
    result, module = train_flat(probe, records.append)
    losses, weights = zip(*by_hand(probe, 5), strict=True)
    assert [record.loss for record in records] == pytest.approx(losses, rel=1e-5)
    assert 0.0 in weights[-1] and weights[-1].max() > 1
    [(outcome, state)] = ReferenceEngine().train([probe])
    assert (outcome.loss, outcome.epochs) == (result.loss, result.epochs)
    assert all(map(torch.equal, state().values(), module.state_dict().values()))


# By its own name, as an optimiser is.

OWN = """
from training.losses import LOSSES, Loss
from training.optimizers import OPTIMIZERS

HALF = Loss(lambda z, y, protocol: LOSSES["cross_entropy"].per_token(z / 2, y, protocol))
SAME = OPTIMIZERS["sgd"]
"""
FLAGS = ("--hidden-size", 4, "--layers", 1, "--engine", "reference", "--max-epochs", 3)


def test_a_file_of_the_current_folder(tmp_path):
    """Its name is the label; workers, which are other processes, find it too."""
    (tmp_path / "own.py").write_text(OWN)
    own = ("--loss", "own:HALF", "--optimizer", "own:SAME", "--momentum", 0.5)
    search = ("--model", "mlp", "--repeats", 1, "--max-size", 2, "--results-dir", tmp_path)
    ended = run_script(BINARY_SEARCH, *search, *FLAGS, *own, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    label = "paper max_epochs=3 loss=own:HALF optimizer=own:SAME momentum=0.5"
    assert f"{label} engine=reference" in (tmp_path / "mlp_probes.csv").read_text()


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--loss=own:NO", "own has no Loss NO"),
        ("--loss=own:SAME", "own has no Loss SAME"),
        ("--optimizer=not_there.own:SAME", "No module named 'not_there'"),
        ("--optimizer=adam", "or package.module:NAME, got adam"),
    ],
)
@pytest.mark.parametrize("script", [TRAIN_MLP, BINARY_SEARCH], ids=lambda path: path.name)
def test_one_that_is_missing(flag, words, script, tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    model = () if script == TRAIN_MLP else ("--model", "mlp", "--results-dir", tmp_path / "runs")
    ended = run_script(script, *model, *FLAGS, flag, cwd=tmp_path)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert len(ended.stderr.splitlines()) == 1 and words in ended.stderr
    assert not (tmp_path / "runs").exists()
