"""Rows of the committed logs, trained again on this machine: every column but the seconds."""

import dataclasses
import random

import pytest
from scripts import ROOT

from engines.engine import NativeEngine
from engines.native.load import load_engine
from threshold_search.log.layout import probe_layout
from threshold_search.log.reader import read_rows
from threshold_search.models import MODELS
from training.probe import BITS_VERSION, Outcome, Probe

pytestmark = pytest.mark.skipif(load_engine() is None, reason="no compiled engine")


def logged(longest_seconds=float("inf")):
    """Return the rows of the engine's published-protocol probes that took no longer."""
    return [
        row
        for path in sorted((ROOT / "results").glob("*_probes.csv"))
        for row in read_rows(path, probe_layout(MODELS[path.stem.removesuffix("_probes")]))
        if (row["protocol"], row["bits"]) == ("paper", BITS_VERSION)
        and row["seconds"] <= longest_seconds
    ]


def assert_equal_when_trained_again(row):
    spec = MODELS[row["model"]]
    architecture = spec.architecture(**{name: row[name] for name in spec.sizes})
    assert architecture.num_parameters == row["num_parameters"]
    probe = Probe(architecture, spec.paper, row["seed"], row["repeat"], row["n"])
    [(outcome, _)] = NativeEngine().train([probe])
    expected = Outcome(**{field.name: row[field.name] for field in dataclasses.fields(Outcome)})
    assert dataclasses.replace(outcome, seconds=0) == dataclasses.replace(expected, seconds=0), row


def test_cheap_rows():
    for row in random.Random(0).sample(logged(longest_seconds=1), 40):
        assert_equal_when_trained_again(row)


@pytest.mark.slow
def test_rows_of_any_cost():
    for row in random.Random(1).sample(logged(), 300):
        assert_equal_when_trained_again(row)
