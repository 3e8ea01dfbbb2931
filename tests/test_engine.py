"""The fast engine as the search uses it: verdicts of the reference, bits that know no neighbour."""

import dataclasses

import numpy as np
import pytest
from scripts import BINARY_SEARCH, TRAIN_MLP, run_script

from mlp_experiments.mlp_utils import MLPArchitecture
from training.engine import fallback_note, start_native, train_probe
from training.native.build import load_library
from training.probe_types import Probe
from training.protocol import Protocol
from transformer_experiments.transformer_utils import TransformerArchitecture

MLP = MLPArchitecture(49, 1)
TRANSFORMER = TransformerArchitecture(32, 380, 4, 1)

needs_compiler = pytest.mark.skipif(load_library("mlp") is None, reason="no C++ compiler")


def probe_of(architecture, n, repeat=0, **changes):
    return Probe(architecture, Protocol.paper(architecture.model, **changes), 0, repeat, n)


@pytest.mark.parametrize(
    "probe",
    [
        probe_of(MLP, 64),
        probe_of(MLP, 900, max_epochs=12),
        probe_of(MLPArchitecture(33, 4), 70),
        probe_of(MLPArchitecture(0, 0), 45),
        probe_of(MLP, 40, learning_rate=1e9),
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


@needs_compiler
@pytest.mark.parametrize("architecture", [MLP, TRANSFORMER], ids=["mlp", "transformer"])
def test_bits_do_not_depend_on_company(architecture):
    probes = [probe_of(architecture, n, repeat) for repeat, n in enumerate((45, 64, 3))]

    def trained(company):
        models = [start_native(probe) for probe in company]
        losses = []
        for _ in range(5):
            for model, orders in models:
                model.train_epoch(next(orders))
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
    assert fallback_note("reference", "cpu", MLP) is None
    assert fallback_note("fast", "cuda", MLP) is None


def small_search(folder, repeats):
    flags = ["--model", "mlp", "--hidden-size", 4, "--layers", 1, "--workers", 2]
    return [*flags, "--repeats", repeats, "--max-size", 4, "--results-dir", folder]


def test_without_a_compiler(tmp_path):
    environment = {"MEMORIZATION_NO_COMPILER": "1"}
    flags = ["--params", 10000, "--num-sequences", 40]
    ended = run_script(TRAIN_MLP, *flags, cwd=tmp_path, **environment)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("\n") == 1 and "MEMORIZATION_NO_COMPILER" in ended.stderr
    with_compiler = run_script(TRAIN_MLP, *flags, cwd=tmp_path)

    def facts(text):
        return [line for line in text.splitlines() if line.startswith(("memorized", "epochs"))]

    assert facts(ended.stdout) == facts(with_compiler.stdout)
    ended = run_script(BINARY_SEARCH, *small_search(tmp_path, 2), cwd=tmp_path, **environment)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("\n") == 1  # said once, not by every worker


@needs_compiler
def test_a_failing_compiler_is_asked_once_for_all_workers(tmp_path):
    calls, compiler = tmp_path / "calls", tmp_path / "failing-c++"
    compiler.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit 0\necho >> {calls}; exit 1\n')
    compiler.chmod(0o755)
    environment = {"CXX": str(compiler), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    ended = run_script(BINARY_SEARCH, *small_search(tmp_path, 4), cwd=tmp_path, **environment)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("compiling failed") == 1
    assert calls.read_text().count("\n") == 1
    assert "engine=stacked" in (tmp_path / "mlp_probes.csv").read_text()
