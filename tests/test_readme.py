"""What the documents say against the committed results and the scripts."""

import csv
import functools
import json
import math
import re

import pandas as pd
import pytest
from documents import DOCUMENTS, LINES, cells, links, name_of, shell_commands
from published_rows import PUBLISHED, RESULTS, compared
from scipy.stats import t as student_t
from scripts import ROOT, run_script

from study import pages
from study.comparison import with_published
from training.errors import UserError
from visualizations.report import summary_table
from visualizations.results import load_results, select

LARGEST_README = 80  # lines


def test_the_readme_is_short_and_begins_with_a_command():
    assert len(LINES["README.md"]) <= LARGEST_README
    question, command, printed, *_ = (ROOT / "README.md").read_text().split("```")
    assert len(f"{question}{command}{printed}".split()) + len(FIRST_RUN.split()) <= 160
    assert command == "sh\nmake threshold\n"


FIRST_RUN = re.search(r"```text\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]


def test_the_first_command_prints_what_is_shown():
    """`make threshold` is the first five repeats of a row that the results have."""
    searches = select(load_results())
    first = searches[(searches["num_parameters"] == 9949) & (searches["repeat"] < 5)]
    first = first[first["model"] == "mlp"].assign(configuration="mlp 49x1")
    assert summary_table(with_published(first)) == FIRST_RUN.rstrip("\n")


# Thresholds.

ROWS = [
    (name, cells(line))
    for name in ("README.md", "results/README.md")
    for line in LINES[name]
    if re.match(r"\|( \d \|)? (mlp|transformer) \d+ x \d.*±", line)
]


def test_the_tables_are_written_by_the_script():
    for path, text in pages.written().items():
        assert path.read_text() == text, f"run study/pages.py: {path.name} differs"


def test_the_tables_are_there():
    names = [name for name, _ in ROWS]
    assert names == ["README.md"] * 3 + ["results/README.md"] * len(PUBLISHED)


def test_an_unknown_table_is_refused():
    with pytest.raises(UserError, match="no table 'mine': there are one, two"):
        pages.fill("<!-- table: mine -->\n<!-- end -->", {"one": str, "two": str}, None)


def shape_of(configuration):
    """Return the model, and the columns that a configuration's name fixes."""
    model, size, layers = re.match(r"(\S+) (\d+) x (\d+)", configuration).groups()
    shape = {"hidden_size": size, "num_layers": layers}
    for column, pattern in (
        ("budget", r"budget ([\d,]+)"),
        ("d_ff", r"d_ff ([\d,]+)"),
        ("num_heads", r"(\d+) head"),
    ):
        if found := re.search(pattern, configuration):
            shape[column] = found[1].replace(",", "")
    return model, {column: int(value) for column, value in shape.items()}


def assert_rounded(text, value):
    """``text`` is ``value`` to as many places as it shows."""
    text = text.replace(",", "")
    places = len(text.partition(".")[2])
    assert abs(float(text) - value) <= 0.5001 * 10**-places, (text, value)


@pytest.mark.parametrize("row", [row for _, row in ROWS], ids=" ".join)
def test_a_row_says_what_the_results_say(row):
    configuration, parameters, ours, interval, published, bits = row[-6:]
    model, shape = shape_of(configuration)
    table = compared(model)
    for column, value in shape.items():
        table = table[table[column] == value]
    if ours == "not measured":
        assert table.empty and interval == bits == "-"
        return
    (result,) = table.to_dict("records")
    assert int(parameters.replace(",", "")) == result["parameters"]
    mean, repeats = re.fullmatch(r"(.*) \((\d+)\)", ours).groups()
    assert int(repeats) == result["repeats"]
    pairs = [(published, result["mean"], result["std"])]
    if result["repeats"] > 1:
        pairs.append((mean, result["ours_mean"], result["ours_std"]))
        half = student_t.ppf(0.975, result["repeats"] - 1) * result["ours_std"]
        half /= result["repeats"] ** 0.5
        for text, sign in zip(interval.split(" to "), (-1, 1), strict=True):
            assert_rounded(text, result["ours_mean"] + sign * half)
    else:
        assert_rounded(mean, result["ours_mean"])
    for text, mean, std in pairs:
        assert_rounded(text.split("±")[0], mean)
        assert_rounded(text.split("±")[1], std)
    stored = result["largest_mean"] * 10 * math.log2(10)
    assert float(bits) == float(f"{stored / result['parameters']:.3g}")


@pytest.mark.parametrize("gpu", ["h100", "h200"])
def test_the_searches_on_a_gpu_are_as_described(gpu):
    lines = LINES["results/README.md"]
    start = lines.index(
        "| configuration | finished searches | mean `first_failure` | trained models |",
        lines.index(f"## {gpu}"),
    )
    rows = [cells(line) for line in lines[start + 2 : lines.index("", start)]]
    folder = RESULTS / gpu
    trained = 0
    for configuration, finished, mean, models in rows:
        model, *_ = configuration.lower().split()
        results, probes = (
            pd.read_csv(folder / f"{model}_{kind}.csv") for kind in ("results", "probes")
        )
        assert {*results["protocol"], *probes["protocol"]} == {"paper device=cuda"}
        numbers = list(map(int, re.findall(r"\d+", configuration)))
        shape = {"hidden_size": numbers[0]}
        if model != "mlp":
            shape |= {"num_layers": numbers[-2], "num_heads": numbers[-1]}
        for column, value in shape.items():
            results, probes = (t[t[column] == value] for t in (results, probes))
        assert len(results) == int(finished.split()[0])
        assert len(probes) == int(models)
        if len(results):
            assert_rounded(mean, results["first_failure"].mean())
        else:
            assert not mean
        trained += len(probes)
    assert trained == sum(len(pd.read_csv(path)) for path in folder.glob("*_probes.csv"))


# Columns.


def described(*headings):
    """Return the names that the tables under these headings of results/README.md explain."""
    text = "\n".join(LINES["results/README.md"])
    sections = dict(re.findall(r"^##+ `([^`\n]+)`\n(.*?)(?=^##|\Z)", text, re.M | re.S))
    rows = [
        cells(line)[0] for h in headings for line in sections[h].splitlines() if line[:2] == "| "
    ]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def explained_in(path):
    """Return the names that are explained for a CSV."""
    name = path.relative_to(RESULTS).as_posix()
    if name.startswith("benchmarks/"):
        return described(re.sub("_(cuda|h200|avx512)", "", name), "benchmarks/*.csv")
    kind = re.fullmatch(r"[a-z-]+_(probes|results)", path.stem)
    if not kind:
        return described(name)
    headings = ["MODEL_probes.csv", "MODEL_results.csv"]
    return described(*headings[: 2 if kind[1] == "results" else 1])


@pytest.mark.parametrize("path", sorted(RESULTS.rglob("*.csv")), ids=name_of)
def test_every_column_is_explained(path):
    with path.open() as file:
        columns = next(csv.reader(file))
    assert set(columns) - explained_in(path) == set()


def test_every_field_of_the_run_record_is_explained():
    names = described("runs.jsonl")
    for line in (RESULTS / "runs.jsonl").read_text().splitlines():
        assert set(json.loads(line)) - names == set()


# Links and commands.


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_every_link_leads_somewhere(path):
    for target in links(path):
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), target


COMMANDS = list(
    dict.fromkeys(
        (name_of(path), " ".join(words)) for path in DOCUMENTS for words in shell_commands(path)
    )
)
OTHERS = ("python3 -m venv .venv", ". .venv/bin/activate")


@functools.cache
def help_of(script):
    ended = run_script(ROOT / script, "--help", cwd=ROOT)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_the_readme_shows_commands():
    assert sum(name == "README.md" for name, _ in COMMANDS) >= 6


@pytest.mark.parametrize("command", COMMANDS, ids=": ".join)
def test_a_command_exists(command):
    program, *words = command[1].split()
    if program == "make":
        (target,) = words
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "pip":
        assert words[:2] == ["install", "-r"]
        assert (ROOT / words[2]).is_file()
    elif program == "python":
        script, *flags = words
        assert (ROOT / script).is_file()
        asked = {flag for flag in flags if flag.startswith("-")}
        if (
            "narrow_experiments.narrow_utils:SPEC" in flags
        ):  # the model of CONTRIBUTING.md has a flag itself
            asked.remove("--width")
        if asked:
            assert asked <= set(re.findall(r"--[a-z][a-z0-9-]*", help_of(script)))
    else:
        assert command[1] in OTHERS
