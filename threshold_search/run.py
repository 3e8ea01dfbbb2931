"""Runs a list of searches from end to end: engines, results folder, workers, run record."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command_line.flags import resolve_device
from command_line.interrupts import import_torch
from engines.cpu import usable_cpus
from engines.engine import Engine, choose_engine, fallback_note
from engines.native.load import engine_compiler
from threshold_search.driver import drive
from threshold_search.executors.executor import DEADLINE_SECONDS, Executor
from threshold_search.executors.local import Workers
from threshold_search.executors.ray_workers import RayWorkers
from threshold_search.log.results_folder import ResultsFolder
from threshold_search.log.run_record import append_run, describe_run
from threshold_search.progress import Progress
from threshold_search.questions.searches import Search, TrialState
from training.errors import UserError
from training.probe import Outcome, Probe
from training.spec import Architecture

EXECUTORS: Mapping[str, Callable[..., Executor]] = {"local": Workers, "ray": RayWorkers}
Row = dict[str, Any]  # of MODEL_results.csv


@dataclass(frozen=True)
class Finished:
    """What became of a list of searches and trials: the finished ones, and why others failed."""

    rows: list[tuple[Search, Row]]
    failures: list[tuple[Search, str]]
    trained: bool  # whether any probe was, or the logs had them all
    trials: list[tuple[Probe, Outcome]]  # the finished ones


def run_searches(
    searches: Sequence[Search],
    results_dir: Path,
    requested_engine: str = "fast",
    device: str = "auto",
    workers: int | None = None,
    notes: Sequence[str] = (),
    command: str | None = None,
    executor: str = "local",
    ray_address: str | None = None,
    deadline: float = DEADLINE_SECONDS,
    speculation: bool = True,
) -> Finished:
    """Run ``searches``, trials among them, to their ends in ``results_dir``.

    Probes that the folder's logs have are not trained again, and where they have all, torch is not
    even imported. ``workers`` are processes, by default one per CPU that this process may use, or
    one in all on a GPU; with Ray as many as there is room for. ``notes`` are printed on
    stderr once the folder is ours. ``command`` is what the run record says started it, by default
    the process's command line. ``executor`` is one of EXECUTORS; Ray's is on this machine or on
    the cluster at ``ray_address``. A job that takes more than ``deadline`` seconds is taken for
    lost. With ``speculation`` spare workers train what searches may ask for next. Raises
    :class:`~training.errors.UserError` for what the user can mend.
    """
    if executor not in EXECUTORS:
        raise UserError(f"no executor {executor!r}: there are {', '.join(EXECUTORS)}")
    if ray_address is not None and executor != "ray":
        raise UserError("--ray-address needs --executor ray")
    device = resolve_device(device)
    # Chosen once, so that the workers need not.
    engines: dict[Architecture, Engine] = {
        s.architecture: choose_engine(requested_engine, device, s.architecture) for s in searches
    }
    for s in searches:  # before anything is written
        engines[s.architecture].check(
            Probe(s.architecture, s.protocol, s.seed, s.repeat, n=1, attempt=s.attempt)
        )
    specs = list(dict.fromkeys(architecture.spec for architecture in engines))
    on_cluster = {"address": ray_address} if ray_address is not None else {}
    worker_count = workers or (None if executor == "ray" else _default_workers(device))
    trained = False

    def before_training() -> None:
        nonlocal trained
        trained = True
        import_torch()  # here, so that a missing or broken one is found before any worker starts
        if note := fallback_note(requested_engine, device, engines):
            print(note, file=sys.stderr)
        used = {
            spec.name: ", ".join(sorted({e.name for a, e in engines.items() if a.spec is spec}))
            for spec in specs
        }
        is_native = any(engine.name == "native" for engine in engines.values())
        native = {"compiler": engine_compiler()} if is_native else {}
        entry = describe_run(used, device, worker_count, native, command, executor, pool.nodes())
        append_run(results_dir, entry)

    with ResultsFolder(
        results_dir, specs, lambda probe: engines[probe.architecture].label
    ) as folder:
        for note in notes:
            print(note, file=sys.stderr)
        pool_of = EXECUTORS[executor]
        with (
            pool_of(worker_count, engines, deadline=deadline, **on_cluster) as pool,
            Progress(searches) as progress,
        ):
            states = drive(searches, folder, pool, progress.show, before_training, speculation)
        return Finished(
            [(s.search, s.row(folder.label(s.probe))) for s in states if s.bounds is not None],
            [(s.search, s.failure) for s in states if s.failure is not None],
            trained,
            [(s.probe, s.outcome) for s in states if isinstance(s, TrialState) and s.outcome],
        )


def _default_workers(device: str) -> int:
    return usable_cpus() if device == "cpu" else 1
