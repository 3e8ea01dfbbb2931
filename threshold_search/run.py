"""Runs a list of searches from end to end: engines, results folder, workers, run record."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from command_line.flags import resolve_device
from command_line.interrupts import import_torch
from engines.cpu import usable_cpus
from engines.engine import Engine, choose_engine, fallback_note
from engines.native.load import engine_compiler
from threshold_search.driver import PROGRESS_SECONDS, Kind, drive, kind_of
from threshold_search.executor import Executor
from threshold_search.progress import Progress
from threshold_search.results_folder import ResultsFolder
from threshold_search.run_record import append_run, describe_run
from threshold_search.searches import Search
from threshold_search.workers import Workers
from training.probe_types import Outcome, Probe
from training.spec import Architecture

EXECUTORS: Mapping[str, Callable[..., Executor]] = {"local": Workers}
Row = dict[str, Any]  # of MODEL_results.csv


@dataclass(frozen=True)
class Finished:
    """What became of a list of searches: the rows of the finished ones, and why others failed."""

    rows: list[tuple[Search, Row]]
    failures: list[tuple[Search, str]]
    trained: bool  # whether any probe was, or the logs had them all


def run_searches(
    searches: Sequence[Search],
    results_dir: Path,
    requested_engine: str = "fast",
    device: str = "auto",
    workers: int | None = None,
    notes: Sequence[str] = (),
    command: str | None = None,
    executor: str = "local",
) -> Finished:
    """Run ``searches`` to their ends in ``results_dir``.

    Probes that the folder's logs have are not trained again, and where they have all, torch is not
    even imported. ``workers`` are processes, by default one per CPU that this process may use, or
    one in all on a GPU. ``notes`` are printed on stderr once the folder is ours. ``command`` is
    what the run record says started it, by default the process's command line. ``executor`` is one
    of EXECUTORS. Raises
    :class:`~training.errors.UserError` for what the user can mend.
    """
    firsts = [
        Probe(s.architecture, s.protocol, s.seed, s.repeat, n=1, attempt=s.attempt)
        for s in searches
    ]
    with _at_work(
        firsts, results_dir, requested_engine, device, workers, notes, command, executor
    ) as work:
        with Progress(len(searches)) as progress:
            states = drive(searches, work.folder, work.pool, progress.show, work.begin)
        return Finished(
            [(s.search, s.row(work.folder.label(s.probe))) for s in states if s.bounds is not None],
            [(s.search, s.failure) for s in states if s.failure is not None],
            work.has_begun,
        )


def run_probes(
    probes: Sequence[Probe],
    results_dir: Path,
    requested_engine: str = "fast",
    device: str = "auto",
    workers: int | None = None,
    notes: Sequence[str] = (),
    command: str | None = None,
    executor: str = "local",
) -> list[tuple[Probe, Outcome]]:
    """Train ``probes``, each of them once, and return those that ended, in their order.

    All else as :func:`run_searches`; nothing is written into MODEL_results.csv. What memory does
    not suffice for is left out.
    """
    with _at_work(
        probes, results_dir, requested_engine, device, workers, notes, command, executor
    ) as work:
        found = {p: o for p in probes if (o := work.folder.outcome(p)) is not None}
        waiting = [p for p in dict.fromkeys(probes) if p not in found]
        if waiting:
            work.begin()
        _train(waiting, work, found)
    return [(p, found[p]) for p in dict.fromkeys(probes) if p in found]


def _train(waiting: list[Probe], work: _Work, found: dict[Probe, Outcome]) -> None:
    """Train the ``waiting`` probes and log them; those that memory suffices for go to ``found``."""
    from tqdm import tqdm

    company: dict[Probe, int] = {}  # how many probes the job has that a probe is in
    alone: set[Probe] = set()  # a job of theirs was too large: each has to show if it is itself
    too_large: dict[Kind, int] = {}  # smallest size that failed alone
    with tqdm(total=len(waiting), unit=" probe", disable=None) as bar:
        while waiting or work.pool.running:
            while waiting and work.pool.has_idle:
                first = waiting[0]
                alike = [p for p in waiting if kind_of(p) == kind_of(first) and p.n == first.n]
                if first in alone:
                    alike = [first]
                job = [p for p in alike if p == first or p not in alone]
                job = job[: work.pool.largest_job(first.architecture)]
                company.update(dict.fromkeys(job, len(job)))
                work.pool.submit(job)
                waiting = [p for p in waiting if p not in job]
            for probe, outcome in work.pool.wait(PROGRESS_SECONDS):
                if isinstance(outcome, Outcome):
                    work.folder.logs[probe.architecture.spec.name].append(probe, outcome)
                    found[probe] = outcome
                elif company[probe] > 1:
                    alone.add(probe)
                    waiting.append(probe)
                    continue
                else:
                    smallest = too_large.get(kind_of(probe), probe.n)
                    too_large[kind_of(probe)] = min(smallest, probe.n)
                bar.update()
            kept = [p for p in waiting if p.n < too_large.get(kind_of(p), p.n + 1)]
            bar.update(len(waiting) - len(kept))
            waiting = kept


@dataclass
class _Work:
    """A results folder that is ours, workers, and what is to be done before they train."""

    folder: ResultsFolder
    pool: Executor
    before_training: Callable[[], None]
    has_begun: bool = False

    def begin(self) -> None:
        """Call once, before the first probe is trained."""
        self.has_begun = True
        self.before_training()


@contextlib.contextmanager
def _at_work(
    probes: Sequence[Probe],
    results_dir: Path,
    requested_engine: str,
    device: str,
    workers: int | None,
    notes: Sequence[str],
    command: str | None,
    executor: str,
) -> Iterator[_Work]:
    """Open the folder for ``probes`` and start workers; see :func:`run_searches`."""
    device = resolve_device(device)
    # Chosen once, so that the workers need not.
    engines: dict[Architecture, Engine] = {}
    for probe in probes:  # before anything is written
        architecture = probe.architecture
        if architecture not in engines:
            engines[architecture] = choose_engine(requested_engine, device, architecture)
        engines[architecture].check(probe)
    specs = list(dict.fromkeys(architecture.spec for architecture in engines))
    worker_count = workers or _default_workers(device)

    def before_training() -> None:
        import_torch()  # here, so that a missing or broken one is found before any worker starts
        if note := fallback_note(requested_engine, device, engines):
            print(note, file=sys.stderr)
        used = {
            spec.name: ", ".join(sorted({e.name for a, e in engines.items() if a.spec is spec}))
            for spec in specs
        }
        is_native = any(engine.name == "native" for engine in engines.values())
        native = {"compiler": engine_compiler()} if is_native else {}
        append_run(results_dir, describe_run(used, device, worker_count, native, command))

    with ResultsFolder(results_dir, specs, lambda a: engines[a].label) as folder:
        for note in notes:
            print(note, file=sys.stderr)
        with EXECUTORS[executor](worker_count, engines) as pool:
            yield _Work(folder, pool, before_training)


def _default_workers(device: str) -> int:
    return usable_cpus() if device == "cpu" else 1
