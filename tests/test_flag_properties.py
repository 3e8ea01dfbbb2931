"""Properties of the flags: whatever is given is answered, or refused in one line."""

import contextlib
import dataclasses
import io
import json
import math
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from command_line.files import write_whole
from command_line.parser import run
from dataset import synthetic_generator
from mlp_experiments import train_mlp
from mlp_experiments.mlp_utils import SPEC as MLP_SPEC
from threshold_search import binary_search, search_flags
from threshold_search.run import Finished
from training.errors import UserError
from transformer_experiments import train_transformer

# Any words as flags.


def status_of(main, words):
    """Run a script's ``main`` in this process; return its status, standard output and error."""
    argv, sys.argv = sys.argv, ["script.py", *words]
    stdout, stderr = io.StringIO(), io.StringIO()
    status = 0
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            run(main)
    except SystemExit as end:
        status = end.code
    finally:
        sys.argv = argv
    return status, stdout.getvalue(), stderr.getvalue()


def assert_answered_or_refused(main, words):
    status, stdout, stderr = status_of(main, words)
    assert "Traceback" not in stderr
    if status in (0, None):
        return stdout
    assert status == 2, stderr
    assert stdout == ""
    assert len(stderr.splitlines()) == 1 and stderr.endswith("\n"), stderr
    return None


# No long numbers, with which a generator would do as it is told.
values = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4),
    st.integers(-3, 99).map(str),
    st.sampled_from(
        ["1e-3", "nan", "inf", "-inf", "1e400", "0x10", "1_0", " 7", "٣", "", "-", "--"]
    ),
    st.sampled_from(["cosine", "orthogonal", "first_perfect", "converged", "cpu", "reference"]),
    st.sampled_from(["margin", "sgd", "float64", "json:loads", "no_such.module:NAME"]),
)


def words_of(*flags, switches=()):
    """Return a strategy for the words of a command: these flags with any values, or any text."""
    switch = st.sampled_from(["--help-me", *switches]).map(lambda name: [name])
    flag = st.tuples(st.sampled_from(flags), values).map(list)
    joined = st.tuples(st.sampled_from(flags), values).map(lambda pair: ["=".join(pair)])
    stray = values.map(lambda value: [value])
    return st.lists(st.one_of(flag, flag, joined, switch, stray), max_size=4).map(
        lambda lists: [word for words in lists for word in words]
    )


PROTOCOL = [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(MLP_SPEC.paper)]
MODEL = ("--params", "--layers", "--hidden-size", "--heads", "--d-ff", "--seed", "--attempt")
TRAIN = (*PROTOCOL, *MODEL, "--protocol", "--num-sequences", "--repeat", "--engine", "--threads")


@settings(max_examples=150)
@given(
    words_of(*TRAIN, switches=["--exact-params"]), st.sampled_from([train_mlp, train_transformer])
)
def test_any_flags_of_a_training_script(words, script):
    base = ["--params", "20000", "--dry-run", "--json", "--device", "cpu"]
    if script is train_transformer:
        base += ["--heads", "2"]
    stdout = assert_answered_or_refused(script.main, [*base, *words])
    if stdout is not None:
        answer = json.loads(stdout)
        assert answer["num_parameters"] >= 1
        assert math.isfinite(answer["learning_rate"]) and answer["learning_rate"] > 0


@given(words_of("--num-sequences", "--vocab-size", "--seq-len", "--seed", "--save"))
def test_any_flags_of_the_generator(words):
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        stdout = assert_answered_or_refused(
            synthetic_generator.main, ["--num-sequences", "3", *words]
        )
        if stdout is None:
            assert list(Path(folder).iterdir()) == []
        else:
            assert stdout.count(" -> ") or stdout.startswith("wrote ")


@settings(max_examples=150)
@given(
    words_of(*PROTOCOL, *MODEL, "--repeats", "--max-size", "--workers", switches=["--paper"]),
    st.sampled_from([["--model", "mlp"], ["--model", "transformer"], ["--paper"], []]),
)
def test_any_flags_of_a_search(words, base):
    asked = []

    def instead(questions, options):
        asked.append(questions)
        return Finished([], [], True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search_flags, "run_searches", instead)
        flags = [*base, "--params", "32000", "--results-dir", "nowhere", "--repeats", "2", *words]
        if "--paper" in base:
            flags.remove("--params")
            flags.remove("32000")
        answered = assert_answered_or_refused(binary_search.main, flags)
    assert (answered is not None) == bool(asked)
    for searches in asked:
        assert all(search.architecture.num_parameters >= 1 for search in searches)
        assert len(set(searches)) == len(searches) >= 1


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12))
def test_any_name_of_a_model(name):
    status, stdout, stderr = status_of(
        binary_search.main, [f"--model={name}", "--params", "0", "--results-dir", "nowhere"]
    )
    assert (status, stdout) == (2, "")
    assert len(stderr.splitlines()) == 1, stderr


@given(st.binary(max_size=64), st.text(min_size=1, max_size=30))
def test_any_name_of_an_output(content, name):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x" + name.replace("/", ""))
        try:
            write_whole(path, lambda file: file.write(content))
        except (UserError, ValueError):  # a NUL or a lone surrogate cannot come from a shell
            assert list(Path(folder).iterdir()) == []
        else:
            assert path.read_bytes() == content
            assert list(Path(folder).iterdir()) == [path]
