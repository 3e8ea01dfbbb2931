"""What one process, the driver of a search, spends on its log and on handing out jobs.

    python benchmarks/driver_costs.py      (some minutes, with nothing beside it; without Ray less)

Reads a log of 300,000 rows, made from the committed one of the transformer under other repeats.
Hands out jobs that are next to nothing to train, one probe each, through every executor; on Ray
packed into calls, each in a call of its own as long jobs have it, and so with as many in flight as
600 workers have, of which two can run at once. Times are CPU seconds of the driver, all its threads
together: the median of some rounds. Prints the table and writes
results/benchmarks/driver_costs.csv.
"""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
import time
from pathlib import Path

from machine import FOLDER, report
from tqdm import tqdm

from command_line.parser import Parser, run
from engines.choice import choose_engine
from mlp_experiments.mlp_utils import SPEC, MLPArchitecture
from threshold_search.executors import ray_workers
from threshold_search.executors.executor import Executor
from threshold_search.executors.local import Workers
from threshold_search.executors.ray_workers import RayWorkers
from threshold_search.log.layout import probe_layout
from threshold_search.log.probe_log import ProbeLog
from threshold_search.log.reader import read_rows
from training.probe import Probe
from transformer_experiments.transformer_utils import SPEC as TRANSFORMER

LOG_ROWS = 300_000
ROUNDS = 5
JOBS = 200  # a round
WORKERS = 2
MANY = 1_200  # calls in flight
KIND = MLPArchitecture(4, 1), SPEC.protocol()


def write_log(path: Path) -> None:
    """Write a log of LOG_ROWS rows: the committed one again and again, its repeats renumbered."""
    layout = probe_layout(TRANSFORMER)
    known = read_rows(FOLDER.parent / path.name, layout)
    repeats = 1 + max(row["repeat"] for row in known)
    with path.open("w", encoding="utf-8") as file:
        file.write(layout.header + "\n")
        for i in range(LOG_ROWS):
            copy, at = divmod(i, len(known))
            file.write(layout.line({**known[at], "repeat": known[at]["repeat"] + copy * repeats}))


def reading() -> dict[str, object]:
    """Return the row of reading a log."""
    times = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{TRANSFORMER.name}_probes.csv"
        write_log(path)
        for _ in range(ROUNDS):
            begin = time.process_time()
            ProbeLog(path, TRANSFORMER).load()
            times.append(time.process_time() - begin)
    return _row("read a row of a log", LOG_ROWS, times)


def handing_out(what: str, executor: Executor, count: int = JOBS) -> dict[str, object]:
    """Return the row of an executor; a round before those that count starts its workers."""
    times = []
    with executor:
        for index in tqdm(range(ROUNDS + 1), desc=what, unit="round", disable=None):
            repeats = range(index * count, (index + 1) * count)
            jobs = [[Probe(*KIND, 0, repeat, 1)] for repeat in repeats]
            begin = time.process_time()
            _train(executor, jobs)
            times.append(time.process_time() - begin)
    return _row(what, count, times[1:])


def _train(executor: Executor, jobs: list[list[Probe]]) -> None:
    waiting, missing = jobs[::-1], len(jobs)
    while missing:
        while waiting and executor.has_idle:
            executor.submit(waiting.pop())
        missing -= len(executor.wait(1.0))


def _row(what: str, count: int, times: list[float]) -> dict[str, object]:
    seconds = statistics.median(times)
    return {
        "what": what,
        "count": count,
        "cpu_seconds": seconds,
        "least": min(times),
        "most": max(times),
        "cpu_ms_each": 1000 * seconds / count,
    }


def main() -> None:
    """Measure, print, write."""
    Parser(__doc__).parse_args()
    engines = {KIND: choose_engine("fast", "cpu", *KIND)}
    rows = [reading(), handing_out("hand out a job, local", Workers(WORKERS, engines))]
    if importlib.util.find_spec("ray"):
        rows.append(handing_out("hand out a short job, Ray", RayWorkers(WORKERS, engines)))
        ray_workers.LARGEST_PACK = 1
        rows.append(handing_out("hand out a long job, Ray", RayWorkers(WORKERS, engines)))
        ray_workers.IN_FLIGHT = MANY // WORKERS
        what = f"hand out a long job, Ray, {MANY:,} in flight"
        rows.append(handing_out(what, RayWorkers(WORKERS, engines), 2 * MANY))
    report(rows, "driver_costs")


if __name__ == "__main__":
    run(main)
