"""Every mistake in the flags: one clear line on stderr, status 2, nothing written."""

import pytest
import torch
from scripts import BINARY_SEARCH, TRAIN_MLP, TRAIN_TRANSFORMER, run_here, run_script

from command_line.parser import run
from training.probe import BITS_VERSION

SEARCH = ("--results-dir", "results")

CASES = [
    (BINARY_SEARCH, "--model cnn --params 1000", "cnn"),
    (BINARY_SEARCH, "--model no_such.module:SPEC", "no_such"),
    (BINARY_SEARCH, "--model training.spec:SPEC", "no ModelSpec SPEC"),
    (BINARY_SEARCH, "--model training.spec:", "package.module:NAME"),
    (BINARY_SEARCH, "--model mlp_experiments.mlp_utils:SPEC", "registered"),
    (BINARY_SEARCH, "--model", "--model"),
    (BINARY_SEARCH, "--params 1000", "--model"),
    (BINARY_SEARCH, "--model mlp", "--params"),
    (BINARY_SEARCH, "--model mlp --params 0", "at least 1"),
    (BINARY_SEARCH, "--model mlp --params many", "whole number"),
    (BINARY_SEARCH, "--model mlp --params 100 --layers 5", "smallest possible budget is 309"),
    (BINARY_SEARCH, "--model mlp --params 10000 --repeats 0", "at least 1"),
    (BINARY_SEARCH, "--model mlp --params 10000 --learning-rate 0", "above 0"),
    (BINARY_SEARCH, "--model mlp --params 10000 --heads 2", "--heads"),
    (BINARY_SEARCH, "--model transformer --params 32000 --heads 5", "does not divide"),
    (BINARY_SEARCH, "--model transformer --params 32000 --layers 0", "at least 1"),
    (BINARY_SEARCH, "--model transformer --params 32000 --layers 4", "--exact-params"),
    (BINARY_SEARCH, "--model decoder-only --params 34342 --heads 3 --norm mid", "'pre', 'post'"),
    (BINARY_SEARCH, "--model decoder-only --d-ff 9", "both --hidden-size and --d-ff"),
    (BINARY_SEARCH, "--model transformer --params 32000 --position rope", "--position"),
    (BINARY_SEARCH, "--paper --params 32000", "--paper"),
    (BINARY_SEARCH, "--paper --layers 7", "no published row"),
    (BINARY_SEARCH, "--paper --model decoder-only", "no published row is of this model"),
    (BINARY_SEARCH, "--paper --model transformer --d-ff 7", "--layers and --heads"),
    (BINARY_SEARCH, "--model mlp --params 10000 --protocol mine", "converged"),
    (BINARY_SEARCH, "--model mlp --params 10000 --schedule step", "cosine"),
    (BINARY_SEARCH, "--model mlp --params " + "9" * 400, "at most"),
    (BINARY_SEARCH, "--model mlp --params 1000 --engine linear-program", "mlp 4x1 is none"),
    (BINARY_SEARCH, "--model mlp --layers 0 --engine linear-program --patience 5", "no setting"),
    (BINARY_SEARCH, "--model mlp --layers 0 --engine linear-program --attempt 1", "--attempt"),
    (TRAIN_MLP, "", "--params"),
    (TRAIN_MLP, "--params 3e4", "whole number"),
    (TRAIN_MLP, "--params 200", "smallest possible budget is 301"),
    (TRAIN_MLP, "--params 10000 --layers -1", "at least 0"),
    (TRAIN_MLP, "--params 10000 --num-sequences 5000000001", "5000000000"),
    (TRAIN_MLP, "--params 10000 --vocab-size 2 --seq-len 3 --num-sequences 5", "4 examples"),
    (TRAIN_MLP, "--params 10000 --learning-rate nan", "above 0"),
    (TRAIN_MLP, "--params 10000 --dropout 1", "--dropout"),
    (TRAIN_MLP, "--params 10000 --batch-size 0", "--batch-size"),
    (TRAIN_MLP, "--params 10000 --protocol converged --max-epochs 20", "--warmup-epochs"),
    (TRAIN_MLP, "--hidden-size 5 --layers 0", "no --hidden-size"),
    (TRAIN_MLP, "--params 10000 --history missing/h.csv", "cannot write"),
    (TRAIN_MLP, "--params 10000 --device tpu", "tpu"),
    (TRAIN_MLP, "--layers 0 --engine linear-program --patience 5", "trains nothing"),
    (TRAIN_TRANSFORMER, "--params 64000 --heads 3", "does not divide"),
    (TRAIN_TRANSFORMER, "--params 100 --heads 4", "smallest possible budget is"),
    (TRAIN_TRANSFORMER, "--architecture gpt --params 64000", "'cross-attention', 'decoder-only'"),
    (TRAIN_TRANSFORMER, "--architecture decoder-only --params 10", "smallest possible budget is"),
    (TRAIN_TRANSFORMER, "--architecture decoder-only --params 5000 --untied yes", "yes"),
    (TRAIN_TRANSFORMER, "--architecture decoder-only --params 5000 --exact-params", "--exact"),
]


def assert_refused(status, stdout, stderr, clue):
    assert status == 2, stderr
    assert stdout == ""
    assert stderr.count("\n") == 1 and stderr.endswith("\n"), stderr
    assert clue in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize(("script", "flags", "clue"), CASES, ids=lambda value: str(value)[-60:])
def test_refused(script, flags, clue, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    where = SEARCH if script == BINARY_SEARCH else ()
    assert_refused(*run_here(script, [*flags.split(), *where], monkeypatch, capsys), clue)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
@pytest.mark.parametrize("script", [TRAIN_MLP, BINARY_SEARCH])
def test_cuda_without_cuda(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    flags = ["--params", "10000", "--device", "cuda"]
    if script == BINARY_SEARCH:
        flags += ["--model", "mlp", *SEARCH]
    assert_refused(*run_here(script, flags, monkeypatch, capsys), "cuda")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_results_folder(tmp_path, monkeypatch, capsys):
    file = tmp_path / "file"
    file.write_text("mine")
    flags = ["--model", "mlp", "--params", "10000", "--results-dir", str(file / "results")]
    assert_refused(*run_here(BINARY_SEARCH, flags, monkeypatch, capsys), "cannot write")
    assert file.read_text() == "mine"


HEADER = (
    "model,protocol,bits,num_parameters,hidden_size,num_layers,repeat,seed,n,"
    "memorized,accuracy,loss,epochs,stop_reason,seconds\n"
)
ROW = f"mlp,paper,{BITS_VERSION},9949,49,1,0,0,2,True,1.0,0.1,5,perfect,0.1\n"


@pytest.mark.parametrize(
    ("name", "content", "clue"),
    [
        ("mlp_probes.csv", "a,b,c\n1,2,3\n", "another layout"),
        ("mlp_probes.csv", "not a log", "another layout"),
        ("mlp_probes.csv", HEADER.replace("bits,", ""), "move it away, or use another folder"),
        ("mlp_probes.csv", HEADER + ROW.replace("paper,", "paper,-"), "line 2: bits"),
        ("mlp_probes.csv", HEADER + ROW + ROW.replace("49,1", "49,one"), "line 3"),
        ("mlp_probes.csv", HEADER + "mlp,paper,9949\n" + ROW, "line 2"),
        ("mlp_probes.csv", HEADER + ROW.replace("perfect", "tired"), "line 2"),
        ("mlp_probes.csv", "name,score\nann,1\nbob,2", "another layout"),
        ("mlp_probes.csv", HEADER + "mlp,paper,9949\n" + ROW[:20], "line 2"),
        ("mlp_probes.csv", HEADER + ROW.replace("mlp", "transformer", 1), "line 2"),
        ("mlp_probes.csv", HEADER + ROW.replace("2,True", "-4,True"), "line 2"),
        ("mlp_probes.csv", HEADER + ROW.replace("1.0,0.1", "7.5,0.1"), "line 2"),
        ("mlp_probes.csv", HEADER + ROW.replace("1.0,0.1", "0.9,0.1"), "line 2"),
        ("mlp_results.csv", "model,threshold\nmlp,3\n", "another layout"),
    ],
)
def test_results_of_another_layout(name, content, clue, tmp_path, monkeypatch, capsys):
    (tmp_path / name).write_text(content)
    flags = ["--model", "mlp", "--params", "10000", "--results-dir", str(tmp_path)]
    status, stdout, stderr = run_here(BINARY_SEARCH, flags, monkeypatch, capsys)
    assert_refused(status, stdout, stderr, clue)
    assert name in stderr
    assert (tmp_path / name).read_text() == content
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_log_that_is_a_folder(tmp_path, monkeypatch, capsys):
    (tmp_path / "mlp_probes.csv").mkdir()
    flags = ["--model", "mlp", "--params", "10000", "--results-dir", str(tmp_path)]
    assert_refused(*run_here(BINARY_SEARCH, flags, monkeypatch, capsys), "cannot write")


def test_refused_in_a_process_of_its_own(tmp_path):
    ended = run_script(TRAIN_MLP, "--params", 10000, "--num-sequences", 0, cwd=tmp_path)
    assert_refused(ended.returncode, ended.stdout, ended.stderr, "at least 1")


@pytest.mark.parametrize("message", ["", "interrupted; it continues from there"])
def test_ctrl_c_is_one_line(message, capsys):
    def interrupted():
        raise KeyboardInterrupt(*filter(None, [message]))

    with pytest.raises(SystemExit) as ended:
        run(interrupted)
    assert ended.value.code == 130
    assert capsys.readouterr().err.strip() == (message or "interrupted")
