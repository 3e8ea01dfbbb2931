"""Worker processes: stateless, one job at a time, one thread each.

A job is one probe, or several of one architecture that train together.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Self

from command_line.interrupts import ENDING, interrupts_held_back
from engines.native.build import source_hash
from threshold_search.executor import run_job, start_worker
from training.errors import OutOfMemory, UserError
from training.probe_types import Outcome, Probe
from training.spec import Architecture

if TYPE_CHECKING:
    from engines.engine import Engine

# Fork would copy the locks of torch's thread pool in whatever state they are.
_CONTEXT = multiprocessing.get_context("spawn")
LOSSES_ALLOWED = 3
EXIT_SECONDS = 1.0
OOM_SCORE = "100"  # counts as if it used a tenth more of the machine's memory
CALLED_DURING_IMPORT = 78  # exit status of a worker: its import of the caller's script searches
NO_GUARD = (
    "the script that called this searches when a worker process imports it: put the call under "
    '`if __name__ == "__main__":`'
)


def _serve(connection: Connection, engines: Mapping[Architecture, Engine], sources: str) -> None:
    """Answer each job with its outcomes until the driver closes the connection or dies."""
    for number in ENDING:  # the driver, which gets them too, ends its workers
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_exit_with_driver, daemon=True).start()
    # When memory runs out, the kernel should kill this process rather than the driver.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, encoding="ascii")
    refusal = start_worker(sources)
    while True:
        try:
            job = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(refusal or run_job(engines, job))


def _exit_with_driver() -> None:
    """Leave at once when the driver is gone, so that a killed driver leaves no orphans."""
    driver = multiprocessing.parent_process()
    if driver is not None:
        driver.join()
        os._exit(1)


def _how_it_ended(worker: _Worker) -> str:
    code = worker.process.exitcode
    if code == -signal.SIGKILL:
        return "killed: out of memory?"
    return f"exit status {code}" if code is None or code >= 0 else f"signal {-code}"


@dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    connection: Connection
    job: list[Probe] = field(default_factory=list)  # empty while it is idle


class Workers:
    """``count`` processes that train probes; a context manager that ends them at once on exit."""

    def __init__(self, count: int, engines: Mapping[Architecture, Engine]) -> None:
        """Take the engine of every architecture: no worker chooses for itself."""
        self._count, self._engines = count, engines
        self._sources = source_hash()
        self._workers: list[_Worker] = []
        self._losses: Counter[Probe] = Counter()  # by the first probe of a job
        self._ended: list[tuple[Probe, Outcome | OutOfMemory]] = []
        self._failure: Exception | None = None  # to be raised once what ended has been handed over

    def __enter__(self) -> Self:
        """Start nothing yet: a process starts with the first job it gets."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the processes; what they were training is lost."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.connection.close()
        self._workers.clear()

    @property
    def has_idle(self) -> bool:
        """Whether a job could start now."""
        return sum(bool(w.job) for w in self._workers) < self._count

    def largest_job(self, architecture: Architecture) -> int:
        """Return how many probes of ``architecture`` make a job at most."""
        return self._engines[architecture].largest_job

    @property
    def running(self) -> list[Probe]:
        """The probes being trained."""
        ended = [probe for probe, _ in self._ended]
        return ended + [probe for w in self._workers for probe in w.job]

    def submit(self, job: list[Probe]) -> None:
        """Hand ``job``, probes of one architecture and protocol, to an idle worker."""
        worker = next((w for w in self._workers if not w.job), None)
        if worker is None:
            worker = self._start()
        worker.job = job
        try:
            worker.connection.send(job)
        except OSError:
            self._replace(worker)

    def wait(self, timeout: float) -> list[tuple[Probe, Outcome | OutOfMemory]]:
        """See :class:`~threshold_search.executor.Executor`."""
        by_connection: dict[object, _Worker] = {w.connection: w for w in self._workers if w.job}
        failure: Exception | None = None
        for connection in wait([w.connection for w in by_connection.values()], timeout):
            worker = by_connection[connection]
            try:
                answer = worker.connection.recv()
            except (EOFError, OSError):
                self._replace(worker)
                continue
            job, worker.job = worker.job, []
            if isinstance(answer, OutOfMemory):
                self._ended += [(probe, answer) for probe in job]
            elif isinstance(answer, list):
                self._ended += zip(job, answer, strict=True)
            else:  # raised after the others' answers were taken: they stay for the next call
                is_users = isinstance(answer, UserError)
                failure = answer if is_users else RuntimeError(f"{job} failed:\n{answer}")
        self._failure = self._failure or failure
        if self._failure is not None and not self._ended:
            raise self._failure
        ended, self._ended = self._ended, []
        return ended

    def _start(self) -> _Worker:
        ours, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(
            target=_serve,
            args=(theirs, self._engines, self._sources),
            daemon=True,
        )
        worker = _Worker(process, ours)
        if sys.platform != "win32":
            resource_tracker.ensure_running()  # would let interrupts through again when it starts
        # The process inherits the block: what Ctrl-C means is the driver's to decide.
        with interrupts_held_back():
            process.start()
            self._workers.append(worker)
        theirs.close()
        return worker

    def _replace(self, dead: _Worker) -> None:
        """Give a dead worker's job to a new one."""
        probe = dead.job[0]
        dead.process.join(EXIT_SECONDS)  # it may still be on its way out, to its own exit status
        dead.process.kill()
        dead.process.join()
        dead.connection.close()
        self._workers.remove(dead)
        if dead.process.exitcode == CALLED_DURING_IMPORT:
            raise UserError(NO_GUARD) from None
        self._losses[probe] += 1
        if self._losses[probe] >= LOSSES_ALLOWED:
            error = OutOfMemory(
                f"a worker died {LOSSES_ALLOWED} times training {probe.architecture.spec.name} "
                f"{probe.architecture.name} on {probe.n} sequences ({_how_it_ended(dead)})"
            )
            self._ended += [(probe, error) for probe in dead.job]
        else:
            self.submit(dead.job)
