"""Which engine trains what, by what there is; what it is called; what is said of it."""

import pickle
from dataclasses import dataclass

import pytest

from engines import choice, engine
from engines.choice import choose_engine, fallback_note
from engines.engine import LinearProgramEngine, NativeEngine, ReferenceEngine, StackedEngine
from engines.native.load import Unavailable, load_engine
from mlp_experiments.mlp_utils import MLPArchitecture
from training.errors import UserError
from training.spec import Architecture, ModelSpec, NativeForm, StackedForm
from transformer_experiments.transformer_utils import TransformerArchitecture

MLP = MLPArchitecture(49, 1)
LARGE_MLP = MLPArchitecture(447, 1)
TRANSFORMER = TransformerArchitecture(32, 380, 4, 1)
EVERY_ENGINE = [
    NativeEngine(),
    *(kind(device) for kind in (ReferenceEngine, StackedEngine) for device in ("cpu", "cuda")),
    LinearProgramEngine(),
]


def toy(size, **forms):
    """Return an architecture of ``size`` parameters whose model, never built, has these forms."""

    @dataclass(frozen=True)
    class Toy(Architecture):
        size: int
        vocab_size: int = 10
        seq_len: int = 10

        @property
        def num_parameters(self):
            return self.size

    ModelSpec("toy", Toy, lambda *_, **__: Toy(size), lambda *_: None, **forms)
    return Toy(size)


def choose(requested, device, architecture, **changes):
    return choose_engine(requested, device, architecture, architecture.spec.protocol(**changes))


def note_of(requested, device, engines):
    """Return the note for engines by architecture, under each one's published protocol."""
    return fallback_note(requested, device, {(a, a.spec.paper): e for a, e in engines.items()})


def stacked(faster_up_to):
    return StackedForm(lambda: None, faster_up_to)


@pytest.fixture
def without_compiled_code(monkeypatch):
    missing = Unavailable("it is gone", "bring it back")
    monkeypatch.setattr(choice, "find_engine", lambda: missing)
    monkeypatch.setattr(choice, "load_engine", lambda: None)


@pytest.fixture
def with_compiled_code(monkeypatch):
    monkeypatch.setattr(choice, "find_engine", object)
    monkeypatch.setattr(choice, "load_engine", object)


def test_this_machine():
    expected = NativeEngine() if load_engine() else StackedEngine()
    assert choose("fast", "cpu", MLP) == expected


@pytest.mark.parametrize("architecture", [MLP, LARGE_MLP, TRANSFORMER], ids=lambda a: a.name)
def test_the_compiled_engine_trains_what_it_knows(architecture, with_compiled_code):
    assert choose("fast", "cpu", architecture) == NativeEngine()
    assert note_of("fast", "cpu", {architecture: NativeEngine()}) is None


@pytest.mark.parametrize(
    ("forms", "expected"),
    [
        ({}, ReferenceEngine()),
        ({"vmap": False}, ReferenceEngine()),
        ({"stacked": stacked(1000)}, StackedEngine()),
        ({"stacked": stacked(999)}, ReferenceEngine()),
        ({"stacked": stacked(0), "native": NativeForm("toy", ())}, NativeEngine()),
        ({"native": NativeForm("toy", ())}, NativeEngine()),
        ({"native": NativeForm("toy", (), lambda a: a.size == 1000)}, NativeEngine()),
        ({"native": NativeForm("toy", (), lambda a: a.size < 1000)}, ReferenceEngine()),
    ],
)
def test_other_models_are_trained_by_what_they_have(forms, expected, with_compiled_code):
    assert choose("fast", "cpu", toy(1000, **forms)) == expected


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        (MLP, StackedEngine()),
        (MLPArchitecture(149, 1), StackedEngine()),
        (LARGE_MLP, ReferenceEngine()),
        (TRANSFORMER, ReferenceEngine()),
        (toy(1000, native=NativeForm("toy", ()), stacked=stacked(1000)), StackedEngine()),
        (toy(1001, native=NativeForm("toy", ()), stacked=stacked(1000)), ReferenceEngine()),
        (toy(1, native=NativeForm("toy", ())), ReferenceEngine()),
    ],
    ids=lambda value: value.name,
)
def test_what_replaces_the_compiled_engine(architecture, expected, without_compiled_code):
    assert choose("fast", "cpu", architecture) == expected
    assert expected.label == f" engine={expected.name}"
    note = note_of("fast", "cpu", {architecture: expected})
    assert "it is gone" in note and "bring it back" in note and f"engine={expected.name}" in note


@pytest.mark.parametrize("architecture", [MLP, TRANSFORMER, toy(10)], ids=lambda a: a.name)
@pytest.mark.parametrize("device", ["cpu", "cuda", "mps"])
def test_the_reference_loop_for_those_who_ask(device, architecture, with_compiled_code):
    assert choose("reference", device, architecture) == ReferenceEngine(device)


def test_other_devices(with_compiled_code):
    for architecture in (MLP, TRANSFORMER, toy(10), toy(10, vmap=False, stacked=stacked(0))):
        assert choose("fast", "cuda", architecture) == StackedEngine("cuda")
        assert choose("fast", "mps", architecture) == ReferenceEngine("mps")
        for requested, changes in (("stacked", {}), ("fast", {"dtype": "float64"})):
            with pytest.raises(UserError, match="float64, which --device mps lacks"):
                choose(requested, "mps", architecture, **changes)
    for forms in ({}, {"native": NativeForm("toy", ())}):
        architecture = toy(10, vmap=False, **forms)
        assert choose("fast", "cuda", architecture) == ReferenceEngine("cuda")


def test_the_note_is_only_where_compiled_code_is_missed(without_compiled_code):
    both = {a: choose("fast", "cpu", a) for a in (MLP, TRANSFORMER)}
    note = note_of("fast", "cpu", both)
    assert "engine=reference or engine=stacked" in note and "\n" not in note
    assert note_of("reference", "cpu", both) is None
    assert note_of("fast", "cuda", both) is None
    unknown = toy(10, stacked=stacked(10))  # to the compiled engine, which could not help
    assert note_of("fast", "cpu", {unknown: StackedEngine()}) is None
    unsupported = toy(10, native=NativeForm("toy", (), lambda a: False))
    note = note_of("fast", "cpu", {unsupported: ReferenceEngine()})
    assert note.startswith("note: the compiled engine has no toy size=10; using the reference loop")
    note = note_of("fast", "cpu", {unknown: StackedEngine(), TRANSFORMER: both[TRANSFORMER]})
    assert "engine=reference" in note and "engine=stacked" not in note


@pytest.mark.parametrize("own_engine", EVERY_ENGINE, ids=repr)
def test_an_engine_is_a_value(own_engine):
    copy = pickle.loads(pickle.dumps(own_engine))
    assert copy == own_engine and copy is not own_engine
    assert hash(copy) == hash(own_engine)
    assert [other for other in EVERY_ENGINE if other == own_engine] == [own_engine]


def test_labels_keep_apart_what_rounds_differently(monkeypatch):
    monkeypatch.setattr(engine, "machine", lambda: "x86_64")
    assert [own_engine.label for own_engine in EVERY_ENGINE] == [
        "",
        " engine=reference",
        " engine=reference device=cuda",
        " engine=stacked",
        " device=cuda",
        " engine=linear-program",
    ]
    monkeypatch.setattr(engine, "machine", lambda: "arm64")
    assert NativeEngine().label == " machine=arm64"


def test_how_many_probes_a_job_has():
    assert [own_engine.largest_job for own_engine in EVERY_ENGINE] == [1, 1, 1, 5, 16, 1]
