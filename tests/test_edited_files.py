"""Logs and results that people, editors and spreadsheets have changed, before a run and in it."""

import codecs
import re
import shutil

import pytest
from test_driver import InstantWorkers, run, searches

from training.errors import UserError
from visualizations.results import load_probes, load_results

LOG, RESULTS = "mlp_probes.csv", "mlp_results.csv"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder, InstantWorkers())
    return folder


@pytest.fixture
def folder(undisturbed, tmp_path):
    """A finished search, to be edited."""
    return shutil.copytree(undisturbed, tmp_path / "results")


# Before a run: what a spreadsheet, an editor or a person makes of a CSV.


def each_line(change):
    """Change every line but the first."""

    def edit(text):
        header, *rows = text.splitlines()
        return "\n".join([header, *map(change, rows)]) + "\n"

    return edit


EDITS = {
    "byte-order mark": lambda text: "\ufeff" + text,
    "Windows lines": lambda text: text.replace("\n", "\r\n"),
    "capitals": lambda text: text.replace("True", "TRUE").replace("False", "FALSE"),
    "33.0": each_line(lambda line: re.sub(r"(?<=,)\d+(?=,)", r"\g<0>.0", line)),
    "1 for 1.0": lambda text: text.replace(",1.0,", ",1,"),
    "blank lines": lambda text: "\n" + text.replace("\n", "\n\n") + "\n\r\n",
    "blank rows": lambda text: text.replace("\n", "\n,,,\n") + ",,,,,,,,,,,,,,,,,,,,,\n , ,\n",
    "more columns": lambda text: text.replace("\n", ",,\n"),
    "quotes": lambda text: re.sub(r"[^,\n]+", r'"\g<0>"', text),
    "sorted": lambda text: "".join(
        text.splitlines(keepends=True)[:1] + sorted(text.splitlines(keepends=True)[1:])
    ),
}
EDITS["a spreadsheet's whole work"] = lambda text: EDITS["byte-order mark"](
    EDITS["Windows lines"](EDITS["blank rows"](EDITS["33.0"](EDITS["capitals"](text))))
)


def assert_same_rows(folder, other):
    for load, last in ((load_probes, "n"), (load_results, "budget")):
        keys = ["num_parameters", "num_layers", "repeat", last]
        ours, theirs = (load(f).sort_values(keys, ignore_index=True) for f in (folder, other))
        assert ours.equals(theirs)


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_an_edit_whose_meaning_is_clear(edit, folder, undisturbed):
    edited = {}
    for name in (LOG, RESULTS):
        edited[name] = edit((folder / name).read_text()).encode()
        (folder / name).write_bytes(edited[name])
    assert_same_rows(folder, undisturbed)
    workers = InstantWorkers()
    run(folder, workers)
    assert workers.trained == []
    assert {name: (folder / name).read_bytes() for name in edited} == edited  # left as it is


@pytest.mark.parametrize("end", ["", "no last line end"])
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_a_search_goes_on_below_an_edit(edit, end, folder, undisturbed, capsys):
    log = folder / LOG
    whole = (undisturbed / LOG).read_text()
    content = edit("".join(whole.splitlines(keepends=True)[:41])).encode()
    if end:
        content = content.rstrip(b"\r\n ,") if b"," in content[-5:] else content.rstrip(b"\r\n")
    log.write_bytes(content)
    workers = InstantWorkers()
    run(folder, workers)
    # Without its end, the last row may be cut.
    assert ("unfinished last line" in capsys.readouterr().err) == bool(end)
    assert len(workers.trained) == whole.count("\n") - 41 + bool(end)
    assert_same_rows(folder, undisturbed)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"\r\n\r\n", codecs.BOM_UTF8, b",,,\r\n,,,\r\n", codecs.BOM_UTF8 + b"\n"],
)
@pytest.mark.parametrize("name", [LOG, RESULTS])
def test_a_blank_file_has_no_rows(content, name, folder, undisturbed):
    (folder / name).write_bytes(content)
    assert (load_probes if name == LOG else load_results)(folder).empty
    run(folder, InstantWorkers())
    rows = (folder / name).read_bytes().removeprefix(content if name == LOG else b"")
    assert sorted(rows.splitlines()) == sorted((undisturbed / name).read_bytes().splitlines())
    assert len(load_probes(folder)) == len(load_probes(undisturbed))


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        (LOG, lambda text: text.replace(",", ";"), "another layout"),
        (LOG, lambda text: text.replace("model,", "Model,", 1), "another layout"),
        (LOG, lambda text: text.replace("0.25", "0,25", 1), "line 2: 21 fields instead of 20"),
        (LOG, lambda text: "\n\n" + text.replace("perfect", "Perfect"), r"line \d+: stop_reason"),
        (LOG, lambda text: text.replace("True", "WAHR"), r"line \d+: memorized: 'WAHR'"),
        (RESULTS, lambda text: text.replace("True", "yes", 1), r"line \d+: max_epoch_reached"),
        (RESULTS, lambda text: text.replace(",0,0,", ",0,1.2E+11,", 1), "line 2: seed"),
        (RESULTS, lambda text: text + text.splitlines()[-1] + "x\n", "line 20: seconds"),
    ],
)
def test_an_edit_whose_meaning_is_not_clear(name, edit, message, folder):
    path = folder / name
    path.write_text(edit(path.read_text()))
    for read in (load_probes if name == LOG else load_results, lambda f: run(f, InstantWorkers())):
        with pytest.raises(UserError, match=message) as error:
            read(folder)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)


def test_the_line_is_the_one_that_an_editor_counts(folder):
    path = folder / RESULTS
    header, first, *_ = path.read_text().splitlines()
    path.write_text("\n".join([header, "", first, ",,,", "", first]))
    with pytest.raises(UserError, match="line 6: repeats an earlier search"):
        load_results(folder)
    path.write_text("\n".join([header, "", first.replace("False", "").replace("True", "")]))
    with pytest.raises(UserError, match="line 3: max_epoch_reached"):
        load_results(folder)


def test_a_file_of_something_else_is_not_cut(tmp_path):
    for content in (b"\n\nnotes", b"notes", b"\xef\xbb\xbfnotes", b"notes\nmore"):
        (tmp_path / LOG).write_bytes(content)
        with pytest.raises(UserError, match="another layout"):
            run(tmp_path, InstantWorkers())
        assert (tmp_path / LOG).read_bytes() == content


# In mid-run.


class MeddledWith(InstantWorkers):
    """Lets something happen after ``count`` probes."""

    def __init__(self, after, meddle):
        super().__init__()
        self.after, self.meddle = after, meddle

    def wait(self, timeout):
        if len(self.trained) == self.after:
            self.meddle()
        return super().wait(timeout)


@pytest.mark.parametrize("after", [1, 30])
def test_a_log_that_is_deleted_in_mid_run_is_written_again(after, tmp_path, undisturbed, capsys):
    log = tmp_path / LOG
    run(tmp_path, InstantWorkers(), searches(repeats=1))  # rows of an earlier run
    trained_before = log.read_text().count("\n") - 1
    workers = MeddledWith(after, log.unlink)
    run(tmp_path, workers)
    assert capsys.readouterr().err == f"{log} was deleted; it is written again\n"
    assert sorted(log.open()) == sorted((undisturbed / LOG).open())
    assert len(workers.trained) + trained_before == log.read_text().count("\n") - 1
    assert (tmp_path / RESULTS).read_bytes() == (undisturbed / RESULTS).read_bytes()


def test_a_log_that_was_blank_and_is_deleted(tmp_path, undisturbed):
    (tmp_path / LOG).write_bytes(b"\n")
    run(tmp_path, MeddledWith(0, (tmp_path / LOG).unlink))
    assert sorted((tmp_path / LOG).open()) == sorted((undisturbed / LOG).open())


def replace(path):
    other = path.with_name("other")
    other.write_text(path.read_text())
    other.replace(path)


CHANGES = {
    "replaced by the same": replace,
    "a row added": lambda log: log.write_text(log.read_text() + log.read_text().splitlines()[-1]),
    "a row deleted": lambda log: log.write_text("".join(log.open().readlines()[:-1])),
    "emptied": lambda log: log.write_text(""),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_log_that_is_changed_in_mid_run(change, tmp_path, undisturbed):
    log = tmp_path / LOG
    left = []

    def meddle():
        change(log)
        left.append(log.read_bytes())

    with pytest.raises(UserError, match=r"was changed by something else.*continues") as error:
        run(tmp_path, MeddledWith(30, meddle))
    assert str(log) in str(error.value) and "\n" not in str(error.value)
    assert log.read_bytes() == left[0]
    run(tmp_path, InstantWorkers())
    assert (tmp_path / RESULTS).read_bytes() == (undisturbed / RESULTS).read_bytes()


def test_a_log_that_appears_in_mid_run_is_not_written_to(tmp_path):
    (tmp_path / "source").mkdir()
    run(tmp_path / "source", InstantWorkers())
    source = (tmp_path / "source" / LOG).read_bytes()
    with pytest.raises(UserError, match="was changed by something else"):
        run(tmp_path, MeddledWith(0, lambda: (tmp_path / LOG).write_bytes(source)))
    assert (tmp_path / LOG).read_bytes() == source


@pytest.mark.parametrize("meddle", ["unlink", "write_text"])
def test_results_that_are_deleted_or_overwritten_in_mid_run(meddle, tmp_path, undisturbed):
    def change():
        (tmp_path / RESULTS).touch()
        getattr(tmp_path / RESULTS, meddle)(*(["x"] if meddle == "write_text" else []))

    run(tmp_path, MeddledWith(60, change))
    assert (tmp_path / RESULTS).read_bytes() == (undisturbed / RESULTS).read_bytes()
