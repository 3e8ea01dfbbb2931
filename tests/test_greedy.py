"""What the decoder-only model's report means: made cases, trained models, the scripts."""

import csv
import json
import math

import numpy as np
import pytest
import torch
from gpt2 import as_ours, gpt2, named
from scripts import BINARY_SEARCH, TRAIN_TRANSFORMER, run_script

from dataset.synthetic_generator import Mappings
from engines.engine import StackedEngine
from training.module import SequenceModel
from training.probe import Probe
from training.start import probe_mappings
from transformer_experiments.decoder_only_utils import SPEC, DecoderOnlyArchitecture
from transformer_experiments.greedy import decode_greedily, label_logits, report

V, T = 10, 4


class Successor(SequenceModel):
    """Predicts that the next token is one more than the last; leads by 2.5."""

    def forward(self, tokens):
        return 2.5 * torch.nn.functional.one_hot((tokens + 1) % V, V).float()


class Constant(SequenceModel):
    """Has the same logit for every token."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, tokens):
        return torch.full((*tokens.shape, V), self.value)


def mappings_of(labels, n=200):
    """Return ``n`` mappings with inputs that end on 3."""
    inputs = np.random.default_rng(0).integers(V, size=(n, T))
    inputs[:, -1] = 3
    return Mappings(inputs, np.tile(labels, (n, 1)))


def test_all_right():
    found = report(Successor(), mappings_of([4, 5, 6, 7]))
    assert found["teacher_forced_accuracy"] == found["greedy_accuracy"] == 1
    assert found["exact_sequences"] == 1
    assert found["smallest_logit_margin"] == 2.5
    assert found["accuracy_by_position"] == [1, 1, 1, 1]
    # What is read off the label stands with other inputs; the rest is guessed.
    first, *others = found["other_inputs_accuracy_by_position"]
    assert others == [1, 1, 1]
    assert abs(first - 1 / V) < 5 * math.sqrt(1 / V * (1 - 1 / V) / 200)  # standard errors
    assert found["other_inputs_accuracy"] == pytest.approx((first + 3) / 4)


def test_greedy_decoding_does_not_come_back_from_a_mistake():
    # After 3 the model says 4, and goes on from there: 4 5 6 7.
    found = report(Successor(), mappings_of([8, 9, 6, 7]))
    assert found["accuracy_by_position"] == [0, 1, 0, 1]
    assert found["teacher_forced_accuracy"] == 0.5
    assert found["greedy_accuracy"] == 0.5  # the last two tokens, by another way
    assert found["exact_sequences"] == 0
    found = report(Successor(), mappings_of([8, 9, 0, 1]))
    assert found["accuracy_by_position"] == [0, 1, 1, 1]
    assert found["greedy_accuracy"] == found["exact_sequences"] == 0


def test_a_share_of_sequences():
    some, others = mappings_of([4, 5, 6, 7], 30), mappings_of([4, 5, 6, 6], 10)
    inputs = np.concatenate([some.inputs, others.inputs])
    found = report(Successor(), Mappings(inputs, np.concatenate([some.labels, others.labels])))
    assert found["exact_sequences"] == 0.75
    assert found["greedy_accuracy"] == found["teacher_forced_accuracy"] == 1 - 10 / 160


def test_the_first_of_equal_logits_is_written():
    x = torch.full((3, T), 5)
    written, logits = decode_greedily(Constant(0.0), x, x.shape[1])
    assert (written == 0).all() and logits.shape == (3, T, V)
    found = report(Constant(0.0), mappings_of([0, 0, 0, 1]))
    assert found["smallest_logit_margin"] == 0
    assert found["accuracy_by_position"] == [1, 1, 1, 0]


def test_nan_is_wrong():
    found = report(Constant(math.nan), mappings_of([0, 0, 0, 0]))
    assert found["teacher_forced_accuracy"] == found["greedy_accuracy"] == 0
    assert math.isnan(found["smallest_logit_margin"])


# --- Trained models --------------------------------------------------------------------------

SMALL = DecoderOnlyArchitecture(12, 24, 2, 1, vocab_size=5, seq_len=4)


def train(n, repeats, **changes):
    """Return (module, mappings, memorized) of every repeat."""
    task = {"vocab_size": 5, "seq_len": 4}
    protocol = SPEC.protocol(**task, learning_rate=0.01, dropout=0.0, **changes)
    probes = [Probe(SMALL, protocol, 0, repeat, n) for repeat in range(repeats)]
    trained = []
    for probe, (outcome, weights) in zip(probes, StackedEngine().train(probes), strict=True):
        module = SPEC.build(SMALL, 0.0)
        module.load_state_dict(weights())
        trained.append((module, probe_mappings(probe), outcome.memorized))
    return trained


def written_by_gpt2(module, x):
    """Greedy decoding by another project's code, in passes as long as what is written."""
    theirs = gpt2(SMALL).eval()
    ours = named(module)
    with torch.no_grad():
        for name in ours:  # as_ours returns views of its tensors
            as_ours(name, named(theirs)).copy_(ours[name])
        tokens = x
        for _ in range(x.shape[1]):
            following = theirs(tokens).logits[:, -1].argmax(-1, keepdim=True)
            tokens = torch.cat([tokens, following], dim=1)
    return tokens[:, x.shape[1] :]


@pytest.mark.parametrize(
    ("n", "max_epochs", "expected"),
    [(6, 400, {True}), (12, 150, set()), (40, 40, {False})],
)
def test_teacher_forcing_and_greedy_decoding_agree(n, max_epochs, expected):
    verdicts = []
    for module, mappings, memorized in train(n, 5, max_epochs=max_epochs):
        x, y = torch.from_numpy(mappings.inputs), torch.from_numpy(mappings.labels)
        forced = (label_logits(module, x, y).argmax(-1) == y).all(1)
        written, _ = decode_greedily(module, x, x.shape[1])
        # Sequence by sequence, so that half-memorized sets are a test too.
        assert torch.equal(forced, (written == y).all(1))
        found = report(module, mappings)
        assert memorized == (found["teacher_forced_accuracy"] == 1)
        assert memorized == (found["greedy_accuracy"] == 1) == (found["exact_sequences"] == 1)
        assert found["exact_sequences"] == forced.double().mean()
        if found["smallest_logit_margin"] > 1e-4:
            assert torch.equal(written, written_by_gpt2(module, x))
        verdicts.append(memorized)
    assert expected <= set(verdicts), verdicts


# --- The scripts -----------------------------------------------------------------------------

FLAGS = ("--heads", 2, "--num-sequences", 3, "--max-epochs", 3)
DECODER = ("--architecture", "decoder-only", *FLAGS, "--params", 3000)


def test_the_summary_shows_the_report(tmp_path):
    ended = run_script(TRAIN_TRANSFORMER, *DECODER, "--json", "--save", "w.pt", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    summary = json.loads(ended.stdout)
    assert (summary["model"], summary["head"]) == ("decoder-only", "tied")
    assert abs(summary["num_parameters"] - 3000) <= 30
    assert summary["teacher_forced_accuracy"] == pytest.approx(summary["accuracy"])
    names = [name for name in DecoderOnlyArchitecture(2, 2, 1, 1).spec.sizes if name in summary]
    assert len(names) == 8
    shape = DecoderOnlyArchitecture(**{name: summary[name] for name in names})
    module = SPEC.build(shape, 0.0)
    module.load_state_dict(torch.load(tmp_path / "w.pt"))
    mappings = probe_mappings(Probe(shape, SPEC.paper, 0, 0, 3))
    for name, value in report(module, mappings).items():
        assert summary[name] == pytest.approx(value, abs=1e-6), name
    shown = run_script(TRAIN_TRANSFORMER, *DECODER, cwd=tmp_path).stdout
    for words in ("teacher forced accuracy", "greedy accuracy", "exact sequences", "logit margin"):
        assert words in shown


def test_the_published_model_stays_the_default(tmp_path):
    results = [
        json.loads(run_script(TRAIN_TRANSFORMER, *FLAGS, *flags, "--json", cwd=tmp_path).stdout)
        for flags in ((), ("--architecture", "cross-attention"))
        for flags in [(*flags, "--hidden-size", 8, "--d-ff", 8)]
    ]
    for summary in results:
        assert summary.pop("seconds") > 0
        assert summary["model"] == "transformer"
        assert "greedy_accuracy" not in summary
    assert results[0] == results[1]


def test_a_search_over_the_options(tmp_path):
    flags = ("--model", "decoder-only", "--hidden-size", 8, "--d-ff", 8, "--layers", 1)
    flags = (*flags, "--heads", 2, "--untied", "--position", "learned", "rope", "--norm", "post")
    flags = (*flags, "--max-size", 2, "--max-epochs", 3, "--repeats", 1, "--results-dir", tmp_path)
    ended = run_script(BINARY_SEARCH, *flags, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    for position in ("", "rope "):
        assert f"d8 ff8 h2 x1 untied {position}post" in ended.stdout
    with (tmp_path / "decoder-only_probes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["position"] for row in rows} == {"learned", "rope"}
    assert {(row["head"], row["norm"], row["activation"]) for row in rows} == {
        ("untied", "post", "gelu")
    }
    again = run_script(BINARY_SEARCH, *flags, cwd=tmp_path)
    assert "nothing was trained" in again.stderr
