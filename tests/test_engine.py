"""The engines in training: verdicts of the reference loop, bits that know no neighbour."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from flat_loop import train_flat
from native_runs import start_native
from protocols import ARCHITECTURES, DECODER_ONLY, SETTINGS, SIZES, perfect_but_not_lowest, probe_of
from scripts import BINARY_SEARCH, TRAIN_MLP, run_script

from engines.choice import choose_engine
from engines.engine import Engine, NativeEngine, ReferenceEngine, StackedEngine
from engines.native.load import load_engine
from mlp_experiments.mlp_utils import MLPArchitecture
from threshold_search.executors.local import Workers
from training.errors import UserError
from training.loop import evaluate
from training.start import start_probe
from transformer_experiments.transformer_utils import TransformerArchitecture

MLP = MLPArchitecture(49, 1)
TRANSFORMER = TransformerArchitecture(32, 380, 4, 1)

needs_engine = pytest.mark.skipif(load_engine() is None, reason="no compiled engine")
EVERY_ENGINE = [
    ReferenceEngine(),
    pytest.param(NativeEngine(), marks=needs_engine),
    StackedEngine(),
]


def by_name(value):
    return value.name if isinstance(value, Engine) else None


def train(own_engine, probe):
    """Return (outcome without its seconds, weights, records)."""
    records = []
    [(outcome, weights)] = own_engine.train([probe], records.append)
    return dataclasses.replace(outcome, seconds=0.0), weights(), records


@functools.cache
def reference_of(probe):
    """Return (outcome, weights, records) of the flat loop."""
    records = []
    outcome, module = train_flat(probe, records.append)
    return outcome, module.state_dict(), records


def assert_follows_the_reference(own_engine, probe):
    outcome, weights, records = train(own_engine, probe)
    expected, expected_weights, expected_records = reference_of(probe)
    assert (outcome.memorized, outcome.stop_reason) == (expected.memorized, expected.stop_reason)
    assert outcome.epochs == expected.epochs
    assert [r.epoch for r in records] == [r.epoch for r in expected_records]
    losses = [[record.loss for record in rs[:50]] for rs in (records, expected_records)]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    rates = [[record.learning_rate for record in rs] for rs in (records, expected_records)]
    np.testing.assert_allclose(*rates, rtol=1e-12)
    shapes = [{k: v.shape for k, v in w.items()} for w in (weights, expected_weights)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    "probe",
    [
        probe_of(MLP, 64),
        probe_of(MLP, 900, max_epochs=12),
        probe_of(MLPArchitecture(33, 4), 70),
        probe_of(MLPArchitecture(0, 0), 45),
        probe_of(MLP, 40, learning_rate=1e9),
        probe_of(MLP, 300, schedule="cosine", warmup_epochs=4, patience=0, max_epochs=30),
        probe_of(TRANSFORMER, 40, schedule="constant", warmup_epochs=3, patience=0, max_epochs=9),
        probe_of(TRANSFORMER, 4),
        probe_of(TRANSFORMER, 40, max_epochs=15),
    ],
    ids=lambda probe: f"{probe.architecture.name} N={probe.n}",
)
def test_outcome_of_the_reference(probe):
    assert_follows_the_reference(choose_engine("fast", "cpu", *probe.kind), probe)


@needs_engine
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, DECODER_ONLY], ids=lambda a: a.spec.name)
def test_every_setting_of_the_reference(architecture, name):
    assert_follows_the_reference(NativeEngine(), probe_of(architecture, SIZES[0], **SETTINGS[name]))


def test_the_settings_end_runs_in_every_way():
    probes = [probe_of(ARCHITECTURES[0], SIZES[0], **changes) for changes in SETTINGS.values()]
    reasons = {reference_of(probe)[0].stop_reason for probe in probes}
    assert reasons == {"perfect", "plateau", "max_epochs", "max_steps"}


@pytest.mark.parametrize("own_engine", EVERY_ENGINE, ids=by_name)
def test_the_verdict_is_of_the_lowest_loss_or_of_the_first_perfect_epoch(own_engine):
    lowest, _, records = train(own_engine, perfect_but_not_lowest("lowest_loss"))
    assert (lowest.stop_reason, lowest.memorized) == ("perfect", False)
    first, _, _ = train(own_engine, perfect_but_not_lowest("first_perfect"))
    assert (first.stop_reason, first.memorized, first.accuracy) == ("perfect", True, 1.0)
    assert lowest.epochs == first.epochs == len(records)
    assert lowest.loss == pytest.approx(min(record.loss for record in records), rel=1e-6)
    assert first.loss == pytest.approx(records[-1].loss, rel=1e-6)


@pytest.mark.parametrize("own_engine", EVERY_ENGINE, ids=by_name)
def test_probes_trained_together(own_engine):
    """The history is the first one's; every outcome is that of the weights beside it."""
    probes = [probe_of(MLP, n, repeat, max_epochs=8) for repeat, n in enumerate((45, 64, 3))]
    records = []
    trained = own_engine.train(probes, records.append)
    assert records == train(own_engine, probes[0])[2]
    for probe, (outcome, weights) in zip(probes, trained, strict=True):
        start = start_probe(probe)
        start.module.load_state_dict(weights())
        loss, accuracy = evaluate(start.module, *start.tensors())
        assert (outcome.loss, outcome.accuracy) == (pytest.approx(loss, rel=1e-5), accuracy)
        assert outcome.seconds > 0
        assert dataclasses.replace(outcome, seconds=0.0) == train(own_engine, probe)[0]


@needs_engine
@pytest.mark.parametrize(
    "architecture", [MLP, TRANSFORMER, DECODER_ONLY], ids=lambda a: a.spec.name
)
def test_bits_do_not_depend_on_company(architecture):
    probes = [probe_of(architecture, n, repeat) for repeat, n in enumerate((45, 64, 3))]

    def trained(company):
        models = [start_native(probe) for probe in company]
        losses = []
        for _ in range(5):
            for model, epochs in models:
                model.train_epoch(*next(epochs))
            losses.append([model.evaluate() for model, _ in models])
        return losses, [model.weights().tobytes() for model, _ in models]

    together, weights = trained(probes)
    for i, probe in enumerate(probes):
        alone, own = trained([probe])
        assert [row[i] for row in together] == [row[0] for row in alone]
        assert weights[i] == own[0]


@pytest.mark.parametrize("own_engine", EVERY_ENGINE, ids=by_name)
def test_the_same_probe_gives_the_same_bits(own_engine):
    probe = probe_of(TRANSFORMER, 8, max_epochs=20)
    (outcome, weights, records), again = (train(own_engine, probe) for _ in range(2))
    assert (outcome, records) == (again[0], again[2])
    assert all(torch.equal(weights[name], value) for name, value in again[1].items())


def small_search(folder, repeats):
    flags = ["--model", "mlp", "--hidden-size", 4, "--layers", 1, "--workers", 2]
    return [*flags, "--repeats", repeats, "--max-size", 4, "--results-dir", folder]


def test_a_job_without_the_compiled_engine(tmp_path):
    environment = {"MEMORIZATION_NO_ENGINE": "1"}
    flags = ["--params", 10000, "--num-sequences", 40]
    ended = run_script(TRAIN_MLP, *flags, cwd=tmp_path, **environment)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("\n") == 1
    for words in ("MEMORIZATION_NO_ENGINE is set", "stacked", "counted apart", "unset it"):
        assert words in ended.stderr
    with_engine = run_script(TRAIN_MLP, *flags, cwd=tmp_path)

    def facts(text):
        return [line for line in text.splitlines() if line.startswith(("memorized", "epochs"))]

    assert facts(ended.stdout) == facts(with_engine.stdout)
    ended = run_script(BINARY_SEARCH, *small_search(tmp_path, 2), cwd=tmp_path, **environment)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("\n") == 1  # said once, not by every worker
    assert "engine=stacked" in (tmp_path / "mlp_probes.csv").read_text()


def test_a_worker_refuses_an_engine_of_other_sources():
    """One that starts late may find the project updated since the driver chose and labelled."""
    with Workers(1, {probe_of(MLP, 2).kind: NativeEngine()}) as workers:
        workers._software = dataclasses.replace(workers._software, engine="of other sources")
        workers.submit([probe_of(MLP, 2)])
        with pytest.raises(UserError, match="changed since the search began"):
            while True:
                workers.wait(1)
