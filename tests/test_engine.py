"""The fast engine as the search uses it: verdicts of the reference, bits that know no neighbour."""

import dataclasses

import numpy as np
import pytest
from scripts import BINARY_SEARCH, TRAIN_MLP, run_script

from engines.engine import fallback_note, start_native, train_probe
from engines.native.load import Unavailable, load_engine
from mlp_experiments.mlp_utils import MLPArchitecture
from threshold_search.workers import Workers
from training import engine
from training.errors import UserError
from training.probe_types import Probe
from transformer_experiments.transformer_utils import TransformerArchitecture

MLP = MLPArchitecture(49, 1)
TRANSFORMER = TransformerArchitecture(32, 380, 4, 1)

needs_engine = pytest.mark.skipif(load_engine() is None, reason="no compiled engine")


def probe_of(architecture, n, repeat=0, **changes):
    return Probe(architecture, architecture.spec.protocol(**changes), 0, repeat, n)


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
    histories = [], []
    fast, weights = train_probe(probe, engine="fast", on_epoch=histories[0].append)
    reference, expected = train_probe(probe, engine="reference", on_epoch=histories[1].append)
    assert (fast.memorized, fast.stop_reason) == (reference.memorized, reference.stop_reason)
    assert fast.epochs == reference.epochs
    losses = [[record.loss for record in history[:50]] for history in histories]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    rates = [[record.learning_rate for record in history] for history in histories]
    np.testing.assert_allclose(*rates, rtol=1e-12)
    assert {k: v.shape for k, v in weights.items()} == {k: v.shape for k, v in expected.items()}


@needs_engine
@pytest.mark.parametrize("architecture", [MLP, TRANSFORMER], ids=["mlp", "transformer"])
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


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_the_same_probe_gives_the_same_bits(engine):
    probe = probe_of(TRANSFORMER, 8, max_epochs=20)
    first, second = (train_probe(probe, engine=engine)[0] for _ in range(2))
    assert dataclasses.replace(first, seconds=0) == dataclasses.replace(second, seconds=0)


def test_fallback_note_is_only_for_the_fast_engine_on_a_cpu():
    assert fallback_note("reference", "cpu", [MLP]) is None
    assert fallback_note("fast", "cuda", [MLP]) is None


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


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        (MLP, "stacked"),
        (MLPArchitecture(149, 1), "stacked"),
        (MLPArchitecture(447, 1), "reference"),
        (TRANSFORMER, "reference"),
    ],
)
def test_what_replaces_the_compiled_engine(architecture, expected, monkeypatch):
    missing = Unavailable("it is gone", "bring it back")
    monkeypatch.setattr(engine, "find_engine", lambda: missing)
    monkeypatch.setattr(engine, "load_engine", lambda: None)
    assert engine.engine_used("fast", "cpu", architecture) == expected
    assert engine.variant_label(expected, "cpu") == f" engine={expected}"
    note = engine.fallback_note("fast", "cpu", [architecture])
    assert "it is gone" in note and "bring it back" in note and f"engine={expected}" in note


def test_stacked_probes_of_a_cpu_job_are_those_of_single_ones():
    probes = [probe_of(MLP, n, repeat, max_epochs=8) for repeat, n in enumerate((45, 64, 3))]
    together = engine.train_probes(probes, "cpu", "stacked")
    alone = [engine.train_probe(probe, "cpu", "stacked")[0] for probe in probes]
    assert [dataclasses.replace(o, seconds=0) for o in together] == [
        dataclasses.replace(o, seconds=0) for o in alone
    ]


def test_a_worker_refuses_an_engine_of_other_sources():
    """One that starts late may find the project updated since the driver chose and labelled."""
    with Workers(1, "cpu", {MLP: "native"}) as workers:
        workers._sources = "those of the driver"
        workers.submit([probe_of(MLP, 2)])
        with pytest.raises(UserError, match="changed since the search began"):
            while True:
                workers.wait(1)
