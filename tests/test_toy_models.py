"""Two models that the project does not know: what they need stands in their own files alone."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import toy_lookup
import toy_reader
from scripts import BINARY_SEARCH, command, results_without_seconds, run_script

from dataset.encoding import IGNORED
from engines.choice import choose_engine
from engines.engine import ReferenceEngine
from training.probe import Probe
from training.start import start_probe
from visualizations.figure_files import save
from visualizations.results import load_probes, load_results
from visualizations.summary import summarize
from visualizations.threshold_lines import threshold_figure

HERE = str(Path(__file__).parent)
SEARCH = ("--model", "toy_lookup:SPEC", "--rows", 16, 2048, "--repeats", 4, "--workers", 2)
SCRIPT = '''"""Train a lookup table."""

from command_line.parser import run
from command_line.training_script import train_script
from toy_lookup import SPEC

run(lambda: train_script(SPEC, __doc__))
'''


def search(folder, *flags):
    return run_script(
        BINARY_SEARCH, *SEARCH, *flags, "--results-dir", folder, cwd=folder.parent, PYTHONPATH=HERE
    )


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "results"
    ended = search(folder)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert "lookup rows=2048" in ended.stdout
    return folder


def rows_of(inputs, architecture):
    """Return the table row of every input, by Python's own integers."""
    factors = [position**3 * 7919 % 1_000_003 for position in range(1, 1 + architecture.seq_len)]
    sums = [sum(int(t) * f for t, f in zip(x, factors, strict=True)) for x in inputs]
    return [total % architecture.rows for total in sums]


@pytest.mark.parametrize("rows", [1, 16, 300])
def test_the_lookup_table_memorizes_what_has_rows_of_its_own(rows):
    architecture = toy_lookup.LookupArchitecture(rows)
    verdicts = set()
    for n, repeat in itertools.product((1, 2, 5, 20), range(3)):
        probe = Probe(architecture, toy_lookup.SPEC.paper, 0, repeat, n)
        [(outcome, _)] = choose_engine("fast", "cpu", *probe.kind).train([probe])
        used = rows_of(start_probe(probe).inputs, architecture)
        assert outcome.memorized == (len(set(used)) == n)
        verdicts.add(outcome.memorized)
    assert len(verdicts) == 2 or rows == 300


def test_shared_script_body(tmp_path):
    script = tmp_path / "train_lookup.py"
    script.write_text(SCRIPT)
    flags = ("--rows", 500, "--num-sequences", 3, "--save", "weights.pt")
    ended = run_script(script, *flags, "--json", cwd=tmp_path, PYTHONPATH=HERE)
    assert ended.returncode == 0, ended.stderr
    summary = json.loads(ended.stdout)
    assert (summary["model"], summary["rows"], summary["num_parameters"]) == ("lookup", 500, 50_000)
    assert (summary["protocol"], summary["memorized"]) == ("paper engine=reference", True)
    assert (tmp_path / "weights.pt").exists()
    refused = run_script(script, "--rows", 0, cwd=tmp_path, PYTHONPATH=HERE)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)


def test_search(searched):
    header, *rows = (searched / "lookup_results.csv").read_text().splitlines()
    assert header.startswith("model,protocol,bits,budget,task,")
    assert ",num_parameters,rows,repeat,seed,threshold" in header
    thresholds = {}
    for row in rows:
        fields = dict(zip(header.split(","), row.split(","), strict=True))
        thresholds.setdefault(int(fields["rows"]), []).append(int(fields["threshold"]))
    assert {r: len(t) for r, t in thresholds.items()} == {16: 4, 2048: 4}
    # The birthday problem: about sqrt(pi / 2 * rows) at the first collision.
    assert np.mean(thresholds[16]) < 10 < np.mean(thresholds[2048]) < 150


def test_killed_and_resumed(searched, tmp_path):
    folder = tmp_path / "results"
    flags = command(BINARY_SEARCH, *SEARCH, "--results-dir", folder)
    process = subprocess.Popen(
        flags, cwd=tmp_path, env={**os.environ, "PYTHONPATH": HERE}, stderr=subprocess.PIPE
    )
    log = folder / "lookup_probes.csv"
    while not log.exists() or log.read_bytes().count(b"\n") < 6:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = log.read_bytes().rpartition(b"\n")[0]
    ended = search(folder)
    assert ended.returncode == 0, ended.stderr
    assert log.read_bytes().startswith(kept)
    name = "lookup_results.csv"
    assert results_without_seconds(folder / name) == results_without_seconds(searched / name)


def test_a_folder_of_ones_own_is_enough(tmp_path):
    """``--model`` finds a module in the current folder, as the worker processes do."""
    (tmp_path / "mine.py").write_text(Path(toy_lookup.__file__).read_text())
    flags = ("--model", "mine:SPEC", "--params", 1000, "--repeats", 1, "--max-size", 4)
    ended = run_script(BINARY_SEARCH, *flags, "--results-dir", "out", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert len((tmp_path / "out" / "lookup_results.csv").read_text().splitlines()) == 2


def test_specs_and_their_counts_need_no_torch():
    program = (
        "import sys; from threshold_search.models import MODELS, find_spec; "
        "specs = [*MODELS.values(), find_spec('toy_lookup:SPEC')]; "
        "print([s.solve(90_000, vocab_size=10, seq_len=10, **{f.name: f.default for f in s.flags "
        "if f.default is not None}).num_parameters for s in specs], 'torch' in sys.modules)"
    )
    environment = {**os.environ, "PYTHONPATH": HERE}
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert run.stdout.endswith("False\n"), run.stderr


def test_the_reader_is_given_its_labels():
    """It can tell the next token by the last two, where no two places of the data disagree."""
    spec = toy_reader.SPEC
    architecture = spec.solve(None, 10, 10)
    verdicts = []
    for n, repeat in itertools.product((1, 2, 3), range(4)):
        probe = Probe(architecture, spec.protocol(learning_rate=0.1), 0, repeat, n)
        start = start_probe(probe)
        assert start.inputs.shape == start.targets.shape == (n, 19)
        assert (start.targets[:, :9] == IGNORED).all() and (start.targets[:, 9:] >= 0).all()
        assert (start.inputs[:, 10:] == start.targets[:, 9:-1]).all()
        nexts = {}
        for sequence, targets in zip(start.inputs, start.targets, strict=True):
            for i in range(9, 19):
                nexts.setdefault((sequence[i - 1], sequence[i]), set()).add(targets[i])
        [(outcome, _)] = ReferenceEngine().train([probe])
        assert outcome.memorized == all(len(tokens) == 1 for tokens in nexts.values())
        verdicts.append(outcome.memorized)
    assert True in verdicts and False in verdicts


def test_read_back_and_drawn(searched, tmp_path):
    results, probes = load_results(searched), load_probes(searched)
    assert results.model.tolist() == ["lookup"] * 8
    assert results["rows"].tolist() == [16] * 4 + [2048] * 4
    assert len(probes) >= results.probes.max() * 2
    table = summarize(results)
    assert table.n.tolist() == [4, 4]
    figure = threshold_figure(results, x="rows", series="model")
    png, pdf = save(figure, "lookup", tmp_path)
    assert png.stat().st_size > 10_000 and pdf.stat().st_size > 5_000
    (axes,) = figure.axes
    assert "rows" in axes.get_xlabel() and "sequences" in axes.get_ylabel()
