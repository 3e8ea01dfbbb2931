"""The protocol's identity in the CSVs, and the values it refuses."""

from __future__ import annotations

import csv
import re
from dataclasses import FrozenInstanceError, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripts import ROOT

from mlp_experiments.mlp_utils import SPEC as MLP_SPEC
from threshold_search.models import MODELS
from training.errors import UserError
from training.protocol import PRESETS, Label, Protocol, parse_label, readers

NAN, INF = float("nan"), float("inf")


def test_paper_settings():
    for model, learning_rate, dropout in (("mlp", 1e-2, 0.0), ("transformer", 5e-4, 0.1)):
        assert vars(MODELS[model].paper) == {
            "vocab_size": 10,
            "seq_len": 10,
            "learning_rate": learning_rate,
            "weight_decay": 0.01,
            "beta1": 0.9,
            "beta2": 0.999,
            "epsilon": 1e-8,
            "batch_size": 32,
            "max_epochs": 500,
            "patience": 3,
            "min_delta": 1e-4,
            "grad_clip": 1.0,
            "dropout": dropout,
            "schedule": "linear",
            "warmup_epochs": 0,
            "max_steps": 0,
            "evaluation_interval": 1,
            "init": "default",
            "verdict": "lowest_loss",
            "task": "bijection",
            "loss": "cross_entropy",
            "optimizer": "adamw",
            "momentum": 0.9,
            "soap_interval": 10,
            "dtype": "float32",
        }


@pytest.mark.parametrize("model", ["mlp", "transformer"])
def test_label_of_the_defaults(model):
    spec = MODELS[model]
    assert spec.paper == spec.protocol() == spec.protocol("paper")
    assert spec.paper.label(spec.paper) == "paper"
    assert spec.protocol(batch_size=32, grad_clip=1.0).label(spec.paper) == "paper"


@pytest.mark.parametrize(
    "model, changes, label",
    [
        ("mlp", {"batch_size": 64}, "paper batch_size=64"),
        ("mlp", {"learning_rate": 5e-4}, "paper learning_rate=0.0005"),
        ("transformer", {"learning_rate": 1e-2}, "paper learning_rate=0.01"),
        ("transformer", {"dropout": 0.0}, "paper dropout=0.0"),
        ("mlp", {"dropout": 0.1}, "paper dropout=0.1"),
        ("mlp", {"min_delta": 1e-7}, "paper min_delta=1e-07"),
        # In the order of the fields, not of the caller.
        ("mlp", {"patience": 9, "beta1": 0.5}, "paper beta1=0.5 patience=9"),
        ("transformer", {"seq_len": 4, "vocab_size": 2}, "paper vocab_size=2 seq_len=4"),
        (
            "mlp",
            {"schedule": "cosine", "warmup_epochs": 9, "patience": 0},
            "paper patience=0 schedule=cosine warmup_epochs=9",
        ),
        (
            "mlp",
            {"verdict": "first_perfect", "init": "orthogonal", "max_steps": 7},
            "paper max_steps=7 init=orthogonal verdict=first_perfect",
        ),
        ("mlp", {"evaluation_interval": 10}, "paper evaluation_interval=10"),
    ],
)
def test_label_names_the_changes(model, changes, label):
    spec = MODELS[model]
    assert spec.protocol(**changes).label(spec.paper) == label


def test_labels_differ_for_every_field_and_value():
    other = {
        "vocab_size": (3, 4),
        "seq_len": (3, 4),
        "learning_rate": (0.1, 0.1 + 1e-15),
        "weight_decay": (0.0, 0.1),
        "beta1": (0.0, 0.8),
        "beta2": (0.0, 0.99),
        "epsilon": (1e-7, 1e-6),
        "batch_size": (1, 33),
        "max_epochs": (1, 501),
        "patience": (0, 4),
        "min_delta": (0.0, 1e-5),
        "grad_clip": (0.0, 2.0),
        "dropout": (0.2, 0.3),
        "schedule": ("cosine", "constant"),
        "warmup_epochs": (1, 2),
        "max_steps": (1, 2),
        "evaluation_interval": (2, 3),
        "init": ("orthogonal",),
        "verdict": ("first_perfect",),
        "task": ("facts", "a.b:C"),
        "loss": ("margin", "a.b:C"),
        "optimizer": ("sgd", "a.b:C"),
        "momentum": (0.5, 0.95),
        "soap_interval": (1, 2),
        "dtype": ("float64",),
    }
    readers = {"momentum": {"optimizer": "sgd"}, "soap_interval": {"optimizer": "soap"}}
    assert set(other) == {f.name for f in fields(Protocol)}
    labels = {
        MLP_SPEC.protocol(**{name: value}, **readers.get(name, {})).label(MLP_SPEC.paper)
        for name, values in other.items()
        for value in values
    }
    assert len(labels) == sum(map(len, other.values()))
    assert not any("," in label or "\n" in label for label in labels)  # they are CSV fields


@pytest.mark.parametrize(
    "name, values",
    [
        ("vocab_size", [1, 0, -3]),
        ("seq_len", [0, -1]),
        ("learning_rate", [0.0, -1e-3, 1e300, NAN, INF]),
        ("weight_decay", [-0.1, NAN, INF]),
        ("beta1", [-0.1, 1.0, NAN]),
        ("beta2", [-0.1, 1.0, NAN]),
        ("epsilon", [0.0, -1e-8, NAN, INF, 1.17e-38]),  # the last is subnormal in float32
        ("batch_size", [0, -1, 1_000_001, 2**32 + 1]),
        ("max_epochs", [0, -1]),
        ("patience", [-1]),
        ("schedule", ["step", "", "Linear"]),
        ("warmup_epochs", [-1, 500]),
        ("max_steps", [-1]),
        ("evaluation_interval", [0, -1]),
        ("init", ["xavier", ""]),
        ("verdict", ["last", ""]),
        ("loss", ["hinge", "", "a.b:", ":C", "a b:C", "a:b=c", "a,b:C", "..a:C"]),
        ("optimizer", ["adam", "SGD"]),
        ("momentum", [-0.1, 1.0, NAN]),
        ("soap_interval", [0]),
        ("dtype", ["float16", "double"]),
        ("min_delta", [-1e-4, NAN, INF]),
        ("grad_clip", [-1.0, NAN, INF]),
        ("dropout", [-0.1, 1.0, NAN]),
    ],
)
def test_bad_values_are_user_errors(name, values):
    flag = "--" + name.replace("_", "-")
    for value in values:
        with pytest.raises(UserError, match=rf"^{flag} must be .*, got {re.escape(str(value))}$"):
            MLP_SPEC.protocol(**{name: value})


def test_a_setting_that_is_not_read_is_refused():
    """Where it was chosen; what a model's own protocol has of it gets its default."""
    for changes in (
        {"momentum": 0.5},
        {"optimizer": "sgd", "beta1": 0.5},
        {"optimizer": "muon", "soap_interval": 5},
    ):
        *_, (name, _) = changes.items()
        flag = "--" + name.replace("_", "-")
        chosen = changes.get("optimizer", "adamw")
        with pytest.raises(UserError, match=rf"^{flag} is a setting of .*, not of {chosen}$"):
            MLP_SPEC.protocol(**changes)
    published = Protocol(beta1=0.8, weight_decay=0.5)
    assert published.changed(optimizer="sgd") == Protocol(weight_decay=0.5, optimizer="sgd")
    assert published.changed(optimizer="muon", beta2=0.9) == Protocol(
        beta1=0.8, beta2=0.9, weight_decay=0.5, optimizer="muon"
    )
    assert published.changed(optimizer="a.b:C", momentum=0.5).beta1 == 0.8  # who knows


@pytest.mark.parametrize(
    "name",
    [
        *("weight_decay", "beta1", "beta2", "min_delta", "grad_clip"),
        "patience",
        "warmup_epochs",
        "max_steps",
    ],
)
def test_zero_switches_off(name):
    assert getattr(MLP_SPEC.protocol(**{name: 0.0}), name) == 0.0


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("model", MODELS)
def test_presets_change_the_published_protocol_and_flags_change_presets(preset, model):
    spec = MODELS[model]
    changes = PRESETS[preset]
    assert spec.protocol(preset) == replace(spec.paper, **changes)
    assert spec.protocol(preset, batch_size=7).batch_size == 7
    label = spec.protocol(preset).label(spec.paper)
    assert label.split(" ")[0] == "paper"
    assert dict(part.split("=") for part in label.split(" ")[1:]) == {
        name: str(value) for name, value in changes.items() if value != getattr(spec.paper, name)
    }


# The label, read back.


def test_every_committed_label_prints_back():
    seen = set()
    for path in (ROOT / "results").rglob("?*_*s.csv"):
        if path.stem.endswith(("_probes", "_results")):
            with path.open(newline="") as file:
                seen |= {(row["model"], row["protocol"]) for row in csv.DictReader(file)}
    assert len(seen) > 70
    for model, text in seen:
        assert str(parse_label(text, MODELS[model].paper)) == text


def values_of(setting):
    """Values of a field: its choices, or numbers that every kind of setting may have."""
    if choices := setting.metadata["choices"]:
        return st.sampled_from([*choices, *["some.module:NAME"] * setting.metadata["is_open"]])
    kind = type(setting.default)
    return st.integers(2, 400) if kind is int else st.floats(1e-12, 0.999)


def protocol_of(**values):
    """Return the protocol of these values but those that its loss or optimiser does not read."""
    chosen = {name: readers(name) or ("task", [values["task"]]) for name in values}
    read = {n: v for n, v in values.items() if values[chosen[n][0]] in chosen[n][1]}
    return Protocol(**read)


settings = {f.name: values_of(f) for f in fields(Protocol)} | {"max_epochs": st.just(401)}
protocols = st.builds(protocol_of, **settings)
labels = st.builds(
    Label,
    protocol=protocols,
    published=protocols,
    attempt=st.integers(0, 10**9),
    engine=st.sampled_from(["", "reference", "linear-program"]),
    device=st.sampled_from(["", "cuda"]),
    machine=st.sampled_from(["", "arm64"]),
    max_size=st.none() | st.integers(1, 10**9),
)


@given(labels)
def test_any_label_is_read_back(label):
    assert parse_label(str(label), label.published) == label


@pytest.mark.parametrize(
    "text",
    [
        *("", "Paper", "paper ", "paper  patience=0", "paper patience", "paper patience="),
        *("paper patience=x", "paper patience=00", "paper patience=1_0", "paper patience=0.0"),
        *("paper dropout=0", "paper dropout=2.0", "paper width=8", "paper patience=0 patience=0"),
        *("paper patience=0 beta1=0.5", "paper max_size=4 engine=reference", "paper schedule=step"),
    ],
)
def test_what_no_label_says_is_refused(text):
    with pytest.raises(ValueError, match=f"^{re.escape(repr(text))} is not a protocol"):
        parse_label(text, MLP_SPEC.paper)


def test_every_field_has_one_line_of_help():
    for setting in fields(Protocol):
        assert setting.metadata["help"]
        assert "\n" not in setting.metadata["help"]


def test_protocol_is_a_value():
    assert MLP_SPEC.protocol() == MLP_SPEC.protocol()
    assert hash(MLP_SPEC.protocol()) == hash(MLP_SPEC.protocol())
    with pytest.raises(FrozenInstanceError):
        MLP_SPEC.protocol().patience = 4
