"""The reader of the results folder, against files made up here and the committed ones."""

import csv
from dataclasses import fields

import pandas as pd
import pytest
from made_results import HEADS_2, MLP_1, WIDTH_HEADER, write_results, write_widths
from scripts import ROOT

from threshold_search.log.layout import task_columns
from threshold_search.models import MODELS
from training.errors import UserError
from training.probe import BITS_VERSION
from training.protocol import LABEL_WORDS, Protocol
from visualizations.results import configuration_columns, load_probes, load_results, select

RESULTS = ROOT / "results"
PROBES = """model,protocol,bits,num_parameters,width,activation,repeat,seed,\
n,memorized,accuracy,loss,epochs,stop_reason,seconds
toy,paper,1,1708,8,relu,0,0,2,True,1.0,0.5,3,perfect,0.25
toy,paper dropout=0.1,2,1708,8,relu,1,0,4,False,0.5,nan,9,diverged,0.5
"""


def text_rows(*paths):
    """Every row of some CSVs as text by column, read without our own code."""
    return [row for path in paths for row in csv.DictReader(path.open(newline=""))]


@pytest.mark.parametrize("kind", ["probes", "results"])
def test_every_committed_row_is_there_as_written(kind):
    frame = {"probes": load_probes, "results": load_results}[kind](RESULTS)
    paths = sorted(RESULTS.glob(f"*_{kind}.csv"))
    assert {"mlp", "transformer"} <= {path.stem.removesuffix(f"_{kind}") for path in paths}
    rows = text_rows(*paths)
    assert len(frame) == len(rows) > 100
    columns = list(dict.fromkeys(column for row in rows for column in row))
    for written, read in zip(rows, frame[columns].to_dict("records"), strict=True):
        for column, value in read.items():
            if column == "first_failure" and not written[column]:
                assert value == int(written["threshold"]) + 1
            elif column not in written:
                assert pd.isna(value)
            elif isinstance(value, float):
                assert value == float(written[column])
            else:
                assert str(value) == written[column]
    if kind == "results":
        assert frame["capped"].tolist() == [not row["first_failure"] for row in rows]


@pytest.mark.parametrize("load", [load_probes, load_results])
def test_every_setting_and_word_of_the_label_has_a_column(load):
    frame = load(RESULTS)
    assert set(frame["task"]) == {"bijection"}
    assert set(frame["label_vocab_size"]) == set(frame["label_len"]) == {10}
    settings = [f for f in fields(Protocol) if f.name not in ("vocab_size", "seq_len", "task")]
    kinds = {f.name: type(f.default) for f in settings} | LABEL_WORDS
    types = {int: "Int64", float: "float64", str: "str"}
    frame = frame.drop(columns="loss", errors="ignore").rename(columns={"loss_setting": "loss"})
    assert {name: str(frame[name].dtype) for name in kinds} == {
        n: types[k] for n, k in kinds.items()
    }
    for (model, text), rows in frame.groupby(["model", "protocol"]):
        said = dict(word.split("=") for word in text.split()[1:])
        for name, kind in kinds.items():
            without = getattr(MODELS[model].paper, name, 0 if kind is int else "")
            if name == "max_size" and name not in said:
                assert rows[name].isna().all()
            else:
                assert (rows[name] == kind(said.get(name, without))).all()


def test_a_setting_named_as_a_column_is_told_apart(tmp_path):
    path = tmp_path / "toy_probes.csv"
    path.write_text(PROBES.replace("width", "schedule"))
    probes = load_probes(tmp_path)
    assert probes["schedule"].tolist() == [8, 8]
    assert probes["schedule_setting"].tolist() == ["linear", "linear"]


def test_several_models_in_one_frame(tmp_path):
    write_results(tmp_path, "mlp", [(MLP_1, [400, 500])])
    write_widths(tmp_path, {(8, "relu"): [9]})
    write_results(tmp_path, "transformer", [(HEADS_2, [20])], "paper dropout=0.2", bits=1)
    results = load_results(tmp_path)
    assert results["model"].tolist() == ["mlp", "mlp", "toy", "transformer"]
    assert results["protocol"].tolist() == ["paper"] * 3 + ["paper dropout=0.2"]
    assert results["bits"].tolist() == [BITS_VERSION] * 3 + [1]
    assert results["hidden_size"].tolist() == [49, 49, pd.NA, 32]
    assert results["num_heads"].tolist() == [pd.NA, pd.NA, pd.NA, 2]
    assert results["width"].tolist() == [pd.NA, pd.NA, 8, pd.NA]
    assert results["activation"].isna().tolist() == [True, True, False, True]
    assert results["activation"][2] == "relu"
    whole = "bits budget num_parameters hidden_size num_heads width repeat threshold first_failure"
    assert set(results[whole.split()].dtypes.astype(str)) == {"Int64"}
    sizes = ["hidden_size", "num_layers", "width", "activation", "d_ff", "num_heads"]
    identity = ["model", "protocol", "bits", "budget", *task_columns(Protocol()), "num_parameters"]
    assert configuration_columns(results) == identity + sizes
    assert select(results)["model"].tolist() == ["mlp", "mlp", "toy"]
    assert select(results, "paper dropout=0.2", bits=1)["model"].tolist() == ["transformer"]


def test_probes_of_an_unregistered_model(tmp_path):
    (tmp_path / "toy_probes.csv").write_text(PROBES)
    probes = load_probes(tmp_path)
    assert probes["n"].tolist() == [2, 4]
    assert probes["memorized"].tolist() == [True, False]
    assert (probes["loss"][0], probes["stop_reason"].tolist()) == (0.5, ["perfect", "diverged"])
    assert pd.isna(probes["loss"][1])
    assert probes["bits"].tolist() == [1, 2]
    assert load_results(tmp_path).empty


def test_numbers_and_words_in_one_column_are_words(tmp_path):
    write_widths(tmp_path, {(8, "7"): [9], (8, "relu"): [9]})
    assert load_results(tmp_path)["activation"].tolist() == ["7", "relu"]


def test_a_capped_search_counts_as_its_limit_and_one(tmp_path):
    path = write_results(tmp_path, "mlp", [(MLP_1, [65, 65])])
    path.write_text(path.read_text().replace("64,65,", "64,,", 1))
    results = load_results(tmp_path)
    assert results["capped"].tolist() == [True, False]
    assert results["first_failure"].tolist() == [65, 65]


def test_an_empty_folder_has_no_rows_but_all_columns(tmp_path):
    assert load_probes(tmp_path).empty
    results = load_results(tmp_path)
    assert results.empty
    assert {"model", "bits", "first_failure", "capped"} <= set(results.columns)


@pytest.mark.parametrize("load", [load_probes, load_results])
def test_an_empty_file_has_no_rows(tmp_path, load):
    for kind in ("probes", "results"):
        (tmp_path / f"toy_{kind}.csv").write_bytes(b"")
    assert load(tmp_path).empty


@pytest.mark.parametrize("load", [load_probes, load_results])
def test_a_missing_folder(tmp_path, load):
    with pytest.raises(UserError, match=r"no results folder .*missing"):
        load(tmp_path / "missing")


ROW = f"toy,paper,{BITS_VERSION},1708,1708,8,relu,0,0,{{}},False,9,1.5\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("width,threshold\n8,3\n", "layout"),
        (WIDTH_HEADER.replace("width", "repeat"), "layout"),
        (WIDTH_HEADER + ROW.format("7,8").replace("toy", "mlp"), "line 2: model"),
        (WIDTH_HEADER + ROW.format("7,9"), "line 2: threshold and first_failure disagree"),
        (WIDTH_HEADER + 2 * ROW.format("7,8"), "line 3: repeats an earlier search"),
        (WIDTH_HEADER + ROW.format("7,8").replace("relu", ""), "line 2: activation: is empty"),
        (WIDTH_HEADER + ROW.format("7,8").replace("paper", "paper width=8"), "line 2: protocol"),
    ],
)
def test_malformed_results_of_an_unregistered_model(tmp_path, content, message):
    path = tmp_path / "toy_results.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=message) as error:
        load_results(tmp_path)
    assert str(path) in str(error.value)


def test_an_unfinished_last_line_of_the_log(tmp_path):
    (tmp_path / "toy_probes.csv").write_text(PROBES + "toy,paper,2,17")
    with pytest.raises(UserError, match=r"toy_probes\.csv line 4: 4 fields"):
        load_probes(tmp_path)
