"""For any text: a right answer, or one line and status 2. For any row: read back equal."""

import contextlib
import dataclasses
import io
import json
import math
import string
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_driver import InstantWorkers

from command_line.files import write_whole
from command_line.parser import run
from dataset import synthetic_generator
from mlp_experiments import train_mlp
from mlp_experiments.mlp_utils import SPEC as MLP_SPEC
from threshold_search import binary_search
from threshold_search.driver import drive
from threshold_search.models import MODELS
from threshold_search.records import probe_layout, probe_layout_of, result_layout, result_layout_of
from threshold_search.results_folder import ResultsFolder, read_rows
from threshold_search.run import Finished
from training.bits import BITS_VERSION
from training.errors import UserError
from training.probe_types import Outcome, Probe
from training.stopping import STOP_REASONS
from transformer_experiments import train_transformer
from visualizations.results import load_probes, load_results

# The same examples in every run, and none kept on disk. All of this file stays below 30 seconds.
settings.register_profile("fixed", derandomize=True, database=None, deadline=None, max_examples=60)
settings.load_profile("fixed")

LOG, RESULTS = "mlp_probes.csv", "mlp_results.csv"
PROBE = f"mlp,paper,{BITS_VERSION},9949,49,1,0,0,2,True,1.0,0.1,5,perfect,0.1"
RESULT = f"mlp,paper,{BITS_VERSION},10000,9949,49,1,0,0,2,3,False,3,0.3"
VALID = {
    LOG: (probe_layout(MLP_SPEC).header, PROBE),
    RESULTS: (result_layout(MLP_SPEC).header, RESULT),
}
LARGEST = 2**63 - 1


# Rows, written and read.

counts = st.integers(0, LARGEST)
positive = st.integers(1, LARGEST)
seconds = st.floats(0, 1e18)
# A protocol column has words; an architecture's own may be any text but an empty one.
protocols = st.lists(st.text(string.ascii_letters + string.digits + "=_.,\"'", min_size=1)).map(
    lambda words: " ".join(["paper", *words])
)


# Words of an architecture: whoever reads a file without its spec takes digits for a number.
words = st.from_regex(r"[a-z][a-z-]{0,7}", fullmatch=True)


@st.composite
def identities(draw, spec, before=()):
    identity = {"model": spec.name, "protocol": draw(protocols), "bits": draw(counts)}
    identity |= {name: draw(positive) for name in before}
    identity |= {
        name: draw(counts if kind is int else words) for name, kind in spec.columns.items()
    }
    return {**identity, "repeat": draw(counts), "seed": draw(counts)}


@st.composite
def outcomes(draw):
    memorized = draw(st.booleans())
    return {
        "memorized": memorized,
        "accuracy": 1.0 if memorized else draw(st.floats(0, 1)),
        "loss": draw(st.floats()),
        "epochs": draw(positive),
        "stop_reason": draw(st.sampled_from(STOP_REASONS)),
        "seconds": draw(seconds),
    }


@st.composite
def probe_rows(draw, spec):
    return {**draw(identities(spec)), "n": draw(positive), **draw(outcomes())}


@st.composite
def result_rows(draw, spec):
    threshold = draw(st.integers(0, LARGEST - 1))
    return {
        **draw(identities(spec, ["budget"])),
        "threshold": threshold,
        "first_failure": draw(st.sampled_from([None, threshold + 1])),
        "max_epoch_reached": draw(st.booleans()),
        "probes": draw(positive),
        "seconds": draw(seconds),
    }


def same(one, other):
    """Whether two rows are equal, NaN to NaN, whole numbers as whole numbers."""
    return list(one) == list(other) and all(
        (a == b and type(a) is type(b)) or (a != a and b != b)
        for a, b in zip(one.values(), other.values(), strict=True)
    )


def table(layout, rows):
    return layout.header + "\n" + "".join(map(layout.line, rows))


@given(data=st.data(), name=st.sampled_from(sorted(MODELS)), kind=st.sampled_from(["p", "r"]))
def test_a_row_that_is_written_is_read_back_equal(data, name, kind):
    spec = MODELS[name]
    rows_of, layout_of, by_header, suffix = {
        "p": (probe_rows, probe_layout, probe_layout_of, "probes"),
        "r": (result_rows, result_layout, result_layout_of, "results"),
    }[kind]
    rows = data.draw(st.lists(rows_of(spec), max_size=3))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{name}_{suffix}.csv")
        path.write_text(table(layout_of(spec), rows))
        for layout in (layout_of(spec), lambda header: by_header(header, name)):
            read = read_rows(path, layout)
            assert len(read) == len(rows)
            assert all(map(same, read, rows))
        frame = load_probes(folder) if kind == "p" else None
        if kind == "r":
            with contextlib.suppress(UserError):  # a search that is there twice
                frame = load_results(folder)
        for row, found in zip(
            rows, [] if frame is None else frame.to_dict("records"), strict=False
        ):
            for column, value in row.items():
                if value is not None and value == value:
                    assert found[column] == value


@given(data=st.data())
def test_an_outcome_that_is_logged_is_found_again(data):
    architecture = MLP_SPEC.architecture(49, 1)
    protocol = MLP_SPEC.protocol(
        learning_rate=data.draw(st.floats(1e-12, 1e10)), patience=data.draw(st.integers(0, LARGEST))
    )
    probe = Probe(architecture, protocol, data.draw(counts), data.draw(counts), data.draw(positive))
    outcome = Outcome(**data.draw(outcomes()))
    with tempfile.TemporaryDirectory() as folder:
        with ResultsFolder(Path(folder), [MLP_SPEC]) as results:
            results.logs["mlp"].append(probe, outcome)
        with ResultsFolder(Path(folder), [MLP_SPEC]) as results:
            found = results.logs["mlp"].get(probe)
        assert same(dataclasses.asdict(found), dataclasses.asdict(outcome))


# Any text as a file.

fragments = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["\n", "\r", "\r\n", ",", '"', ";", "\0", "\ufeff", "33.0", "TRUE", "nan", "-1", "1e400"]
    ),
    st.sampled_from(
        ["9" * 20, "9" * 5000, "paper", "mlp", "perfect", "", " ", PROBE, RESULT, "٣", "1_0"]
    ),
)


@st.composite
def files(draw):
    """A name and a content: nonsense, or a valid file with a field or some bytes changed."""
    name = draw(st.sampled_from([LOG, RESULTS]))
    header, row = VALID[name]
    kind = draw(st.sampled_from(["text", "bytes", "field", "cut", "inserted"]))
    if kind == "text":
        return name, "".join(draw(st.lists(fragments, max_size=8))).encode(errors="replace")
    if kind == "bytes":
        return name, draw(st.binary(max_size=40))
    if kind == "field":
        fields = row.split(",")
        fields[draw(st.integers(0, len(fields) - 1))] = draw(fragments)
        return name, f"{header}\n{','.join(fields)}\n{row}\n".encode(errors="replace")
    content = f"{header}\n{row}\n".encode()
    place = draw(st.integers(0, len(content)))
    if kind == "cut":
        return name, content[:place]
    return name, content[:place] + draw(st.binary(max_size=6)) + content[place:]


def one_line_or(answer, path):
    """Call ``answer``; whatever it refuses is one line that names the file."""
    try:
        return answer()
    except UserError as error:
        assert len(str(error).splitlines()) == 1, repr(str(error))
        assert str(path) in str(error)
        return None


@settings(max_examples=250)
@given(files())
def test_any_file_is_read_or_refused_in_one_line(file):
    name, content = file
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, name)
        path.write_bytes(content)
        frame = one_line_or(lambda: (load_probes if name == LOG else load_results)(temporary), path)
        if frame is not None:
            assert len(frame) <= max(content.count(b"\n"), content.count(b"\r")) + 1

        def search():
            with ResultsFolder(Path(temporary), [MLP_SPEC]) as folder:
                known = dict(folder.logs["mlp"]._outcomes)
                drive(SEARCHES, folder, InstantWorkers())
            return known

        with contextlib.redirect_stderr(io.StringIO()) as notes:
            known = one_line_or(search, path)
        if known is None:
            assert path.read_bytes() == content  # what is refused stays as it is
            return
        assert "Traceback" not in notes.getvalue()
        # What was known is still there, and all of it can be read.
        with ResultsFolder(Path(temporary), [MLP_SPEC]) as folder:
            again = folder.logs["mlp"]._outcomes
            assert all(key in again for key in known)
        one_line_or(lambda: load_probes(temporary), temporary)
        assert b"mlp,paper," in Path(temporary, LOG).read_bytes()


SEARCHES = binary_search.searches(
    [(MLP_SPEC.architecture(49, 1), MLP_SPEC.paper, 10_000)], repeats=1, max_size=2
)


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

    def instead(searches, results_dir, **options):
        asked.append((searches, results_dir))
        return Finished([], [], True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(binary_search, "run_searches", instead)
        flags = [*base, "--params", "32000", "--results-dir", "nowhere", "--repeats", "2", *words]
        if "--paper" in base:
            flags.remove("--params")
            flags.remove("32000")
        answered = assert_answered_or_refused(binary_search.main, flags)
    assert (answered is not None) == bool(asked)
    for searches, _ in asked:
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
