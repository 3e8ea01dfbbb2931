"""The figures that scripts draw of their own work: of a search, and of one training."""

import shlex

import pandas as pd
import pytest
from drawn import drawn, only_axes
from made_results import HEADS_2, HEADS_8, MLP_1, MLP_4, MLP_30K, write_results, write_widths
from scripts import BINARY_SEARCH, FIGURES, TRAIN_MLP, run_here, run_script

from training.errors import UserError
from visualizations.history import history_figure, read_history
from visualizations.results import load_results
from visualizations.search_figure import axes_of, search_figure

SEARCH = shlex.split("--model mlp --params 1000 --layers 0 1 --max-size 4 --repeats 1 --workers 1")
PNG, PDF = b"\x89PNG", b"%PDF"
HEADS_2_DEEP = {**HEADS_2, "num_parameters": 34954, "d_ff": 128, "num_layers": 2}
HEADS_8_DEEP = {**HEADS_2_DEEP, "num_heads": 8}


@pytest.mark.parametrize(
    ("model", "architectures", "axes"),
    [
        ("mlp", [MLP_1], ("num_parameters", "model")),
        ("mlp", [MLP_1, MLP_4], ("num_layers", "model")),
        ("mlp", [MLP_1, MLP_30K], ("hidden_size", "model")),
        ("mlp", [MLP_1, MLP_4, MLP_30K], ("hidden_size", "model")),
        ("transformer", [HEADS_2, HEADS_8], ("num_heads", "model")),
        (
            "transformer",
            [HEADS_2, HEADS_8, HEADS_2_DEEP, HEADS_8_DEEP, {**HEADS_2, "num_heads": 4}],
            ("num_heads", "num_layers"),
        ),
    ],
)
def test_the_axes_are_what_the_search_varied(model, architectures, axes, tmp_path):
    write_results(tmp_path, model, [(architecture, [9, 8]) for architecture in architectures])
    assert axes_of(load_results(tmp_path)) == axes


def test_the_axes_of_words_and_of_several_models(tmp_path):
    write_widths(tmp_path, {(8, "relu"): [90], (16, "relu"): [91], (8, "tanh"): [92]})
    assert axes_of(load_results(tmp_path)) == ("width", "activation")
    write_results(tmp_path, "mlp", [(MLP_1, [9])])
    write_results(tmp_path, "transformer", [(HEADS_2, [9]), (HEADS_8, [9])])
    assert axes_of(load_results(tmp_path)) == ("num_parameters", "model")


def test_a_line_has_one_protocol(tmp_path):
    write_results(tmp_path, "mlp", [(MLP_1, [9]), (MLP_4, [8])])
    searches = load_results(tmp_path)
    searches.loc[0, "protocol"] = "paper engine=stacked"
    assert axes_of(searches) == ("num_layers", "protocol")


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A folder with a search's logs, and what the script said."""
    folder = tmp_path_factory.mktemp("searched")
    ended = run_script(
        BINARY_SEARCH, *SEARCH, "--results-dir", "runs", "--figure=f.png", cwd=folder
    )
    return folder, ended


def test_a_search_draws_its_figure_at_the_end(searched):
    folder, ended = searched
    assert ended.returncode == 0, ended.stderr
    assert (folder / "f.png").read_bytes().startswith(PNG)
    assert "mean" in ended.stdout  # the table is there as well
    again = run_script(
        BINARY_SEARCH, *SEARCH, "--results-dir", "runs", "--figure", "f.PDF", cwd=folder
    )
    assert again.returncode == 0, again.stderr
    assert (folder / "f.PDF").read_bytes().startswith(PDF)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("f.gif", "argument --figure: must end in .png or .pdf, got f.gif"),
        ("f", "argument --figure: must end in .png or .pdf, got f"),
        ("missing/f.png", "cannot write missing/f.png"),
        ("", "argument --figure: a path is needed, got an empty one"),
    ],
)
def test_a_figure_that_cannot_be_written_is_refused_before_anything_is_trained(
    name, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    flags = [*SEARCH, "--results-dir=r", f"--figure={name}"]
    expected = (2, "", f"binary_search.py: error: {message}\n")
    assert run_here(BINARY_SEARCH, flags, monkeypatch, capsys) == expected
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif("not __import__('os').path.exists('/dev/full')")
def test_a_figure_that_is_lost_takes_no_result_with_it(searched):
    folder, _ = searched
    (folder / "full.png").symlink_to("/dev/full")
    ended = run_script(
        BINARY_SEARCH, *SEARCH, "--results-dir", "runs", "--figure", "full.png", cwd=folder
    )
    assert ended.returncode == 2
    assert "mean" in ended.stdout
    assert "error: cannot write full.png" in ended.stderr.splitlines()[-1]


# One training.


def history_of(path, rows, header="epoch,loss,accuracy,learning_rate"):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_a_history_is_drawn_in_one_line(tmp_path):
    flags = shlex.split("--hidden-size 8 --num-sequences 4 --history h.csv")
    trained = run_script(TRAIN_MLP, *flags, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    ended = run_script(FIGURES, "history", "h.csv", cwd=tmp_path)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.split() == ["h.png", "h.pdf"]
    assert (tmp_path / "h.png").read_bytes().startswith(PNG)
    assert (tmp_path / "h.pdf").read_bytes().startswith(PDF)


def test_the_lines_are_the_columns(tmp_path):
    rows = ["1,2.3,0.1,0.01", "2,1.1,0.5,0.009", "3,0.2,1.0,0.008"]
    history = read_history(history_of(tmp_path / "h.csv", rows))
    figure = history_figure(history, "h")
    expected = pd.read_csv(tmp_path / "h.csv")
    for axes, column in zip(figure.axes, expected.columns[1:], strict=True):
        (line,) = axes.lines
        assert line.get_xdata().tolist() == [1, 2, 3]
        assert line.get_ydata().tolist() == expected[column].tolist()
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear", "linear"]
    assert "nats" in figure.axes[0].get_ylabel()
    assert figure.axes[-1].get_xlabel() == "epoch"


@pytest.mark.parametrize("loss", ["nan", "inf", ""])
def test_a_loss_that_is_not_finite_is_marked(loss, tmp_path):
    history = read_history(history_of(tmp_path / "h.csv", ["1,2.3,0.1,0.01", f"2,{loss},0.1,0.01"]))
    figure = history_figure(history, "h")
    figure.draw_without_rendering()
    assert figure.axes[0].lines[1].get_xdata().tolist() == [2]
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "not finite"


def test_a_loss_of_zero_has_no_logarithm(tmp_path):
    history = read_history(history_of(tmp_path / "h.csv", ["1,0.5,1.0,0.01", "2,0.0,1.0,0.01"]))
    assert history_figure(history, "h").axes[0].get_yscale() == "linear"


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff\xfe\x00", b"a,b\n1,2\n", b"epoch,loss,accuracy,learning_rate\n1,2,x,4\n"],
)
def test_what_is_no_history(content, tmp_path):
    path = tmp_path / "h.csv"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"h\.csv is no history of train_\*\.py"):
        read_history(path)


def test_a_history_without_epochs(tmp_path):
    with pytest.raises(UserError, match="no epochs"):
        read_history(history_of(tmp_path / "h.csv", []))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["history"], "the following arguments are required: FILE.csv"),
        (["history", "none.csv"], "cannot read none.csv: No such file or directory"),
        (["history", "."], "cannot read .: Is a directory"),
        (["--results-dir", ".", "history", "h.csv"], "--results-dir is not for a history"),
        (["story", "h.csv"], "invalid choice: 'story'"),
    ],
)
def test_bad_input_is_one_line(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, stdout, stderr = run_here(FIGURES, flags, monkeypatch, capsys)
    assert (status, stdout) == (2, "")
    assert stderr.count("\n") == 1
    assert message in stderr
    assert not list(tmp_path.iterdir())


def test_points_are_the_thresholds_of_the_rows(tmp_path):
    write_results(tmp_path, "mlp", [(MLP_1, [400, 500]), (MLP_4, [7, 9])])
    axes = only_axes(search_figure(load_results(tmp_path)))
    x, mean, _ = drawn(axes, "mlp", "ours")
    assert mean.tolist() == [450, 8]
    assert axes.get_xticks().tolist() == [1, 4]
    assert len(x) == 2
