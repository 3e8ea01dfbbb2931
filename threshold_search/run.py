"""Runs a list of searches from end to end: engines, results folder, workers, run record."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from command_line.flags import resolve_device
from command_line.interrupts import import_torch
from threshold_search.driver import drive
from threshold_search.progress import Progress
from threshold_search.results_folder import ResultsFolder
from threshold_search.run_record import append_run, describe_run
from threshold_search.searches import Search
from threshold_search.workers import Workers
from training.spec import Architecture

if TYPE_CHECKING:
    from engines.engine import Engine

Finished = tuple[Search, dict[str, Any]]  # ..., its row in MODEL_results.csv


def run_searches(
    searches: Sequence[Search],
    results_dir: Path,
    requested_engine: str = "fast",
    device: str = "auto",
    workers: int | None = None,
    notes: Sequence[str] = (),
) -> list[Finished]:
    """Run ``searches`` to their ends in ``results_dir``; return each with its result row.

    Probes that the folder's logs have are not trained again. ``workers`` are processes, by default
    one per core, or one in all on a GPU. ``notes`` are printed on stderr once the folder is ours.
    Raises :class:`~training.errors.UserError` for what the user can mend.
    """
    import_torch()  # not before: neither --help nor the start of a worker should wait for it
    from engines.engine import choose_engine, fallback_note
    from engines.native.load import engine_compiler

    device = resolve_device(device)
    # Chosen once, so that the workers need not.
    engines: dict[Architecture, Engine] = {
        s.architecture: choose_engine(requested_engine, device, s.architecture) for s in searches
    }
    specs = list(dict.fromkeys(architecture.spec for architecture in engines))
    worker_count = workers or _default_workers(device)

    def before_training() -> None:
        if note := fallback_note(requested_engine, device, engines):
            print(note, file=sys.stderr)
        used = {
            spec.name: ", ".join(sorted({e.name for a, e in engines.items() if a.spec is spec}))
            for spec in specs
        }
        is_native = any(engine.name == "native" for engine in engines.values())
        native = {"compiler": engine_compiler()} if is_native else {}
        append_run(results_dir, describe_run(used, device, worker_count, native))

    with ResultsFolder(results_dir, specs, lambda a: engines[a].label) as folder:
        for note in notes:
            print(note, file=sys.stderr)
        with Workers(worker_count, engines) as pool, Progress(len(searches)) as progress:
            states = drive(searches, folder, pool, progress.show, before_training)
        return [(state.search, state.row(folder.label(state.probe))) for state in states]


def _default_workers(device: str) -> int:
    if device != "cpu":
        return 1
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
