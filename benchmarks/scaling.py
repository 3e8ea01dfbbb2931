"""How far more workers take a study: the real driver on simulated workers, nothing is trained.

    python benchmarks/scaling.py

Runs all searches of --paper with 20 repeats on 1, 2, 4, ... 1,024 workers, with and without
speculation, and once more with nodes that fail. Verdicts and seconds of probes that results/ has
are those; the others are drawn from a fit per configuration (logged_probes.py). Prints the table,
writes results/benchmarks/scaling.csv and the figure results/figures/scaling.png and .pdf.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from logged_probes import LoggedProbes
from machine import FOLDER, report
from matplotlib.figure import Figure
from simulated_workers import SimulatedWorkers
from tqdm import tqdm

from command_line.parser import Parser, run
from threshold_search.driver import drive
from threshold_search.log.results_folder import ResultsFolder
from threshold_search.models import MODELS
from threshold_search.plan import published_configurations, searches
from threshold_search.questions.searches import Search
from training.probe import Outcome, Probe
from visualizations.drawing import drawable_figure, own_style, style_of
from visualizations.figure_files import save

REPEATS = 20
WORKERS = tuple(2**power for power in range(11))
FAILURES = 0.25  # of each node, per hour


def paper_searches(repeats: int = REPEATS) -> list[Search]:
    """Return what --paper --repeats asks for."""
    rows = [r for spec in MODELS.values() for r in published_configurations(spec, spec.paper, {})]
    return searches(rows, repeats)


def simulate(
    wanted: Sequence[Search],
    probes: LoggedProbes,
    workers: int,
    speculate: bool,
    failures: float = 0.0,
) -> tuple[dict, list[dict]]:
    """Return a row of the table, and the result rows without their seconds.

    ``efficiency`` is the time of the probes that the results count, over that of all workers.
    """
    specs = list(dict.fromkeys(s.architecture.spec for s in wanted))
    executor = SimulatedWorkers(workers, probes.answer, failures)
    with tempfile.TemporaryDirectory() as folder, ResultsFolder(Path(folder), specs) as results:
        begin = time.process_time()
        states = drive(wanted, results, executor, speculate=speculate)
        spent = time.process_time() - begin - executor.own_seconds
        rows = [state.row(results.label(state.probe)) for state in states]
    asked = asked_for(wanted, probes)
    useful = math.fsum(probes.answer(probe).seconds for probe in asked)
    drawn = sum(not probes.is_logged(probe) for probe in executor.trained)
    row = {
        "workers": workers,
        "speculation": speculate,
        "failures_per_node_hour": failures,
        "makespan_hours": executor.now / 3600,
        "efficiency": useful / (workers * executor.now),
        "driver_ms_per_probe": 1000 * spent / len(executor.trained),
        "probes_counted": len(asked),
        "probes_trained": len(executor.trained),
        "drawn_share": drawn / len(executor.trained),
        "jobs_lost": executor.lost,
    }
    return row, [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def asked_for(wanted: Sequence[Search], probes: LoggedProbes) -> set[Probe]:
    """Return the probes that the searches' results count, each once."""
    asked: set[Probe] = set()

    def answer(probe: Probe) -> Outcome:
        asked.add(probe)
        return probes.answer(probe)

    for search in wanted:
        search.start().advance(answer)
    return asked


@own_style()
def draw(table: pd.DataFrame) -> Figure:
    """Return the figure: makespan and efficiency over the number of workers."""
    figure = drawable_figure((9, 3.9))
    left, right = figure.subplots(1, 2)
    series = table.groupby(["failures_per_node_hour", "speculation"], sort=True)
    for index, ((failures, speculates), rows) in enumerate(series):
        style = style_of(index)
        name = "speculation" if speculates else "no speculation"
        label = f"{name}, nodes fail {failures:g} times per hour" if failures else name
        line = "-" if speculates else "--"
        for axes, column in ((left, "makespan_hours"), (right, "efficiency")):
            axes.plot(
                rows["workers"],
                rows[column],
                line,
                color=style.color,
                marker=style.marker,
                markersize=style.size,
                markerfacecolor="white" if failures else style.color,
                label=label,
            )
    workers = sorted(table["workers"].unique())
    first = table.loc[table["workers"] == workers[0], "makespan_hours"].min()
    left.plot(workers, [first / n for n in workers], ":", color="0.5", label="one worker's / n")
    left.set(yscale="log", ylabel="makespan (hours, simulated)")
    right.set(ylabel="efficiency", ylim=(0, 1.05))
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(workers, [f"{n:,}" for n in workers], rotation=45)
        axes.set_xlabel("workers")
        axes.grid(color="0.9", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
    left.legend(fontsize=7.5)
    return figure


def main() -> None:
    """Simulate, print, write, draw."""
    Parser(__doc__).parse_args()
    wanted = paper_searches()
    probes = LoggedProbes(FOLDER.parent, [s.architecture for s in wanted])
    print("fits of the nearest configuration: " + "; ".join(a.name for a in probes.borrowed))
    cases = [(n, s, f) for f in (0.0, FAILURES) for s in (False, True) for n in WORKERS]
    rows, first = [], None
    for workers, speculate, failures in tqdm(cases, unit="case", disable=None):
        row, results = simulate(wanted, probes, workers, speculate, failures)
        row |= {"logged_rows": probes.logged_rows, "fits_borrowed": len(probes.borrowed)}
        first = first or results
        assert results == first, "the results depend on who trains"
        rows.append(row)
    report(rows, "scaling")
    save(draw(pd.DataFrame(rows)), "scaling", FOLDER.parent / "figures")


if __name__ == "__main__":
    run(main)
