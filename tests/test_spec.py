"""What a spec may hold, and what the scripts make of its flags."""

import argparse
import sys
from dataclasses import make_dataclass

import pytest

from command_line import training_script
from command_line.flags import SCRIPT_FLAGS, add_model_flags
from command_line.parser import Parser
from mlp_experiments import mlp_utils
from threshold_search import binary_search
from threshold_search.log.layout import probe_layout, result_layout
from threshold_search.models import MODELS
from threshold_search.plan import configurations
from training.errors import UserError
from training.protocol import Protocol
from training.schedule import SCHEDULES
from training.spec import FIXED_COLUMNS, Architecture, Flag, ModelSpec


class _Sized(Architecture):
    num_parameters = 1


def spec_of(sizes, name="toy", flags=(), **more):
    fields = [*sizes.items(), ("vocab_size", int), ("seq_len", int)]
    kind = make_dataclass("Toy", fields, bases=(_Sized,), frozen=True)

    def solve(budget, vocab_size, seq_len, **given):
        return kind(**given, vocab_size=vocab_size, seq_len=seq_len)

    return ModelSpec(name, kind, solve, build=None, flags=flags, **more)


def test_an_architecture_belongs_to_one_spec():
    with pytest.raises(ValueError, match="belongs to another spec"):
        ModelSpec("twice", mlp_utils.MLPArchitecture, mlp_utils.solve, build=None)


@pytest.mark.parametrize("name", ["", "a/b", "..", "Two Words", "_probes"])
def test_names_that_no_file_should_begin_with(name):
    with pytest.raises(ValueError, match="file name"):
        spec_of({"width": int}, name)


@pytest.mark.parametrize("kind", [bool, float, list])
def test_sizes_are_whole_numbers_and_words(kind):
    with pytest.raises(ValueError, match="an int or a str"):
        spec_of({"width": kind})
    assert list(spec_of({"width": int, "kind": str}).columns) == ["num_parameters", "width", "kind"]


@pytest.mark.parametrize("column", ["bits", "seed", "n", "epochs", "first_failure"])
def test_sizes_are_no_other_columns(column):
    with pytest.raises(ValueError, match="such a column"):
        spec_of({column: int})


def test_the_fixed_columns_are_those_of_the_files():
    spec = MODELS["mlp"]
    columns = {*probe_layout(spec).columns, *result_layout(spec).columns} - set(spec.sizes)
    assert columns | {"capped"} == FIXED_COLUMNS


def flags_of(parse, argv, monkeypatch):
    """Return the destinations of every flag that a script's parser has."""
    found = {}

    def read(parser):
        found.update({action.dest: action for action in parser._actions})
        raise SystemExit

    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(Parser, "parse_args", read)
    with pytest.raises(SystemExit):
        parse()
    return set(found)


def test_the_scripts_flags_are_known(monkeypatch):
    spec = MODELS["mlp"]
    everything = flags_of(binary_search.main, ["x", "--model", "mlp"], monkeypatch)
    everything |= flags_of(
        lambda: training_script._parse(spec, ["mlp", "other"], ""), ["x"], monkeypatch
    )
    own = {flag.name for flag in spec.flags} | set(vars(spec.paper))
    assert everything - own <= SCRIPT_FLAGS


@pytest.mark.parametrize("name", ["seed", "params", "dropout", "workers"])
def test_a_models_flag_is_none_of_the_scripts(name):
    with pytest.raises(UserError, match="script's flag"):
        add_model_flags(
            Parser(""),
            [
                spec_of(
                    {name: int} if name == "dropout" else {"width": int},
                    flags=(Flag(name, "mine"),),
                )
            ],
        )


def test_flags_of_one_name_and_several_kinds():
    one = spec_of({"kind": str}, "one", (Flag("kind", "a word", choices=("a", "b")),))
    other = spec_of({"kind": int}, "other", (Flag("kind", "a number"),))
    with pytest.raises(UserError, match="not of one kind for the models one and other"):
        add_model_flags(Parser(""), [one, other])
    third = spec_of({"kind": str}, "third", (Flag("kind", "a letter", choices=("c",)),))
    parser = Parser("")
    add_model_flags(parser, [one, third])
    assert parser.parse_args(["--kind", "c"]) == argparse.Namespace(kind="c")


def test_a_search_takes_the_flags_default_where_the_grid_is_silent():
    spec = spec_of({"width": int}, flags=(Flag("width", "units", default=7),))
    ((architecture, _, _),) = configurations(spec, Protocol(), None, {})
    assert architecture.width == 7


def test_an_architecture_without_sizes_has_a_name():
    assert spec_of({}).solve(None, 10, 10).name == "1 parameters"


def test_every_schedule_is_a_choice():
    (choices,) = [
        field.metadata["choices"]
        for field in Protocol.__dataclass_fields__.values()
        if field.name == "schedule"
    ]
    assert list(choices) == list(SCHEDULES)


def test_presets_have_names():
    with pytest.raises(ValueError, match="paper, converged"):
        MODELS["mlp"].protocol("papre")
