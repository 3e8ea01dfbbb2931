"""For any text: a right answer, or one line and status 2. For any row: read back equal."""

import contextlib
import dataclasses
import functools
import io
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from test_driver import InstantWorkers

from mlp_experiments.mlp_utils import SPEC as MLP_SPEC
from threshold_search import binary_search
from threshold_search.driver import drive
from threshold_search.log.layout import layout_of, probe_layout, result_layout, task_columns
from threshold_search.log.reader import read_rows
from threshold_search.log.results_folder import ResultsFolder
from threshold_search.models import MODELS
from training.errors import UserError
from training.probe import BITS_VERSION, Outcome, Probe
from training.protocol import Label
from training.stopping import STOP_REASONS
from visualizations.results import load_probes, load_results

LOG, RESULTS = "mlp_probes.csv", "mlp_results.csv"
TASK = "bijection,10,10,10,10"
PROBE = f"mlp,paper,{BITS_VERSION},{TASK},9949,49,1,0,0,2,True,1.0,0.1,5,perfect,0.1"
RESULT = f"mlp,paper,{BITS_VERSION},10000,{TASK},9949,49,1,0,0,2,3,False,3,0.3"
VALID = {
    LOG: (probe_layout(MLP_SPEC).header, PROBE),
    RESULTS: (result_layout(MLP_SPEC).header, RESULT),
}
LARGEST = 2**63 - 1


# Rows, written and read.

counts = st.integers(0, LARGEST)
positive = st.integers(1, LARGEST)
seconds = st.floats(0, 1e18)
# Words of an architecture: whoever reads a file without its spec takes digits for a number.
words = st.from_regex(r"[a-z][a-z-]{0,7}", fullmatch=True)


@st.composite
def identities(draw, spec, before=()):
    sizes = st.integers(2, 10)
    protocol = spec.protocol(vocab_size=draw(sizes), seq_len=draw(sizes), patience=draw(counts))
    label = str(Label(protocol, spec.paper, draw(counts)))
    identity = {"model": spec.name, "protocol": label, "bits": draw(counts)}
    identity |= {name: draw(positive) for name in before} | task_columns(protocol)
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
    rows_of, layout_by_spec, suffix = {
        "p": (probe_rows, probe_layout, "probes"),
        "r": (result_rows, result_layout, "results"),
    }[kind]
    rows = data.draw(st.lists(rows_of(spec), max_size=3))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{name}_{suffix}.csv")
        path.write_text(table(layout_by_spec(spec), rows))
        by_header = functools.partial(layout_of, name, spec.paper, kind == "p")
        for layout in (layout_by_spec(spec), by_header):
            try:
                read = read_rows(path, layout)
            except UserError:  # a search that is there twice
                assert kind == "r"
                return
            assert len(read) == len(rows)
            assert all(map(same, read, rows))
        frame = load_probes(folder) if kind == "p" else load_results(folder)
        for row, found in zip(rows, frame.to_dict("records"), strict=True):
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
            results.logs["mlp"].append([(probe, outcome)])
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
