"""The table at the end of a search, from made-up outcomes."""

import subprocess
import sys

import scipy.stats
from scripts import ROOT

from study.comparison import with_published
from threshold_search.models import MODELS
from threshold_search.plan import configurations, searches
from training.probe import Outcome
from visualizations.report import searches_frame, summary_table


def finished(model, largest, budget=None, max_size=None, changes=None, **flags):
    """Searches of one configuration, one repeat per largest size memorized, with their rows."""
    spec = MODELS[model]
    protocol = spec.protocol(**(changes or {}))
    found = configurations(spec, protocol, budget, {name: [v] for name, v in flags.items()})
    ended = []
    for search, size in zip(searches(found, len(largest), max_size=max_size), largest, strict=True):
        state = search.start()
        while round_ := state.wanted():
            verdicts = [probe.n <= size for probe in round_]
            state.take([Outcome(v, 1.0 if v else 0.5, 0.1, 5, "perfect", 0.5) for v in verdicts])
        ended.append((search, state.row(search.probe(1).label)))
    return ended


def table_of(finished):
    return summary_table(with_published(searches_frame(finished)))


def test_each_configuration_beside_the_published_number():
    table = table_of(
        [
            *finished("mlp", [410, 500, 540], 10_000, layers=1),
            *finished("mlp", [7], 9_000, layers=2),
            *finished("transformer", [20, 24], 32_000, layers=1, heads=2),
        ]
    )
    first, second, third = table.splitlines()[1:4]
    low, high = scipy.stats.t.interval(
        0.95, 2, loc=1453 / 3, scale=scipy.stats.sem([411, 501, 541])
    )
    assert first.split() == [
        *["mlp", "49x1", "10000", "9949", "3", "484.3"],
        *f"{low:.1f} to {high:.1f} 501 66.6 467".split(),
    ]
    # 2 * 100 * 37 + 37 * 37 + 2 * 37 + 100 parameters
    assert second.split() == ["mlp", "37x2", "9000", "8943", "1", "8.0", "-", "8", "-", "-"]
    assert third.split()[:8] == ["transformer", "d32", "ff380", "h2", "x1", "32000", "34342", "2"]
    assert third.split()[8:] == ["23.0", "-2.4", "to", "48.4", "23", "2.8", "16.4"]


def test_a_lower_bound_has_no_interval():
    table = table_of(finished("mlp", [40, 90], 10_000, max_size=64, layers=1))
    line = table.splitlines()[1]
    assert "(paper max_size=64)" in line
    assert line.split()[-5:] == [">=53.0", "-", ">=53", "17.0", "467"]


def test_another_task_has_no_published_number():
    # 5 tokens from 20: as many one-hot inputs, hence as many parameters, as the published task.
    changes = {"vocab_size": 20, "seq_len": 5}
    table = table_of(finished("mlp", [40, 50], 10_000, changes=changes, layers=1))
    line = table.splitlines()[1]
    assert " 9949 " in line
    assert line.split()[-1] == "-"


def test_without_published_numbers_there_is_no_such_column():
    found = searches_frame(finished("mlp", [40, 50], 10_000, layers=1))
    assert summary_table(found).splitlines()[0].split()[-2:] == ["median", "std"]


def test_it_imports_neither_torch_nor_matplotlib():
    code = (
        "import sys, study.comparison, visualizations.report; "
        "print({'torch', 'matplotlib', 'scipy.stats'} & set(sys.modules))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ended.stdout.strip() == "set()"
