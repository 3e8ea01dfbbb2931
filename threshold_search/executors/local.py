"""Worker processes: stateless, one job at a time, one thread each.

A job is one probe, or several of one architecture and protocol that train together.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING

from command_line.interrupts import ENDING, interrupts_held_back
from engines.cpu import cpu_name
from threshold_search.executors.executor import (
    DEADLINE_SECONDS,
    LOSSES_ALLOWED,
    NO_MEMORY_TO_START,
    Executor,
    run_job,
    start_worker,
)
from threshold_search.executors.software import Software, own_software
from training.errors import OutOfMemory, UserError
from training.probe import Kind, Outcome, Probe

if TYPE_CHECKING:
    from engines.engine import Engine

# Fork would copy the locks of torch's thread pool in whatever state they are.
_CONTEXT = multiprocessing.get_context("spawn")
EXIT_SECONDS = 1.0
OOM_SCORE = "100"  # counts as if it used a tenth more of the machine's memory
CALLED_DURING_IMPORT = 78  # exit status of a worker: its import of the caller's script searches
NO_GUARD = (
    "the script that called this searches when a worker process imports it: put the call under "
    '`if __name__ == "__main__":`'
)


def serve(connection: Connection, software: Software) -> None:
    """Answer each job with its outcomes until the driver closes the connection or dies."""
    for number in ENDING:  # the driver, which gets them too, ends its workers
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_exit_with_driver, daemon=True).start()
    # When memory runs out, the kernel should kill this process rather than the driver.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE, encoding="ascii")
    refusal = start_worker()
    # One that starts late may find the project updated meanwhile.
    if refusal is None and (difference := own_software().difference(software)):
        refusal = UserError(
            f"the project has changed since the search began ({difference}); start it again "
            "(every finished probe is kept)"
        )
    while True:
        try:
            engine, job = connection.recv()
        except (EOFError, OSError):
            return
        connection.send(refusal or run_job(engine, job))


def _exit_with_driver() -> None:
    """Leave at once when the driver is gone, so that a killed driver leaves no orphans."""
    driver = multiprocessing.parent_process()
    if driver is not None:
        driver.join()
        os._exit(1)


def _how_it_ended(code: int | None) -> str:
    if code == NO_MEMORY_TO_START:
        return "not enough memory to import torch"
    if code == -signal.SIGKILL:
        return "killed: out of memory?"
    return f"exit status {code}" if code is None or code >= 0 else f"signal {-code}"


@dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    connection: Connection
    job: list[Probe] = field(default_factory=list)  # empty while it is idle
    losses: int = 0  # of the job so far, with other workers
    until: float = 0.0  # when the job's deadline is, by time.monotonic


class Workers(Executor):
    """``count`` processes that train probes; a context manager that ends them at once on exit."""

    def __init__(
        self,
        count: int,
        engines: Mapping[Kind, Engine],
        deadline: float = DEADLINE_SECONDS,
    ) -> None:
        """Take how many processes there may be; each starts with the first job it gets."""
        super().__init__(engines, deadline)
        self._count = count
        self._software = own_software()
        self._workers: list[_Worker] = []

    def close(self) -> None:
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

    def nodes(self) -> list[dict[str, object]]:
        """Return this machine alone."""
        return [{"cpu": cpu_name(), "jobs": self._count}]

    def submit(self, job: list[Probe]) -> None:
        """Hand ``job`` to an idle worker."""
        self._hand(job, 0)

    def _hand(self, job: list[Probe], losses: int) -> None:
        worker = next((w for w in self._workers if not w.job), None) or self._start()
        worker.job, worker.losses = job, losses
        worker.until = time.monotonic() + self._deadline
        try:
            worker.connection.send((self._engines[job[0].kind], job))
        except OSError:
            self._replace(worker)

    def wait(self, timeout: float) -> list[tuple[Probe, Outcome | OutOfMemory]]:
        """See :class:`~threshold_search.executors.executor.Executor`."""
        by_connection: dict[object, _Worker] = {w.connection: w for w in self._workers if w.job}
        for connection in wait([w.connection for w in by_connection.values()], timeout):
            worker = by_connection[connection]
            try:
                answer = worker.connection.recv()
            except (EOFError, OSError):
                self._replace(worker)
                continue
            job, worker.job = worker.job, []
            self._end(job, answer)
        now = time.monotonic()
        for worker in [w for w in self._workers if w.job and w.until < now]:
            self._replace(worker, is_late=True)
        return self._hand_over()

    def _start(self) -> _Worker:
        ours, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=serve, args=(theirs, self._software), daemon=True)
        worker = _Worker(process, ours)
        if sys.platform != "win32":
            resource_tracker.ensure_running()  # would let interrupts through again when it starts
        # The process inherits the block: what Ctrl-C means is the driver's to decide.
        with interrupts_held_back():
            process.start()
            self._workers.append(worker)
        theirs.close()
        return worker

    def _replace(self, dead: _Worker, is_late: bool = False) -> None:
        """Give the job of a worker that is dead, or late, to a new one."""
        if not is_late:  # it may still be on its way out, to its own exit status
            dead.process.join(EXIT_SECONDS)
        dead.process.kill()
        dead.process.join()
        dead.connection.close()
        self._workers.remove(dead)
        if dead.process.exitcode == CALLED_DURING_IMPORT:
            raise UserError(NO_GUARD) from None
        late = "took longer than the deadline"
        how = late if is_late else _how_it_ended(dead.process.exitcode)
        losses = dead.losses + 1
        if losses < LOSSES_ALLOWED:
            self._hand(dead.job, losses)
        else:
            self._give_up(dead.job, how)
