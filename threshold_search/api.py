"""The Python interface, for notebooks and other programs.

    from threshold_search.api import find_threshold, train_probe

A script that calls :func:`find_threshold` needs ``if __name__ == "__main__":`` around the call,
because workers are new processes, which import the script; a notebook does not.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from command_line.flags import resolve_device
from engines.engine import choose_engine
from threshold_search.executors.executor import DEADLINE_SECONDS
from threshold_search.executors.local import CALLED_DURING_IMPORT
from threshold_search.plan import searches
from threshold_search.run import run_searches
from training.errors import OutOfMemory, UserError
from training.probe import Outcome, Probe
from training.protocol import Protocol
from training.spec import Architecture
from visualizations.results import results_frame, with_settings

if TYPE_CHECKING:
    from os import PathLike


def find_threshold(
    architecture: Architecture,
    protocol: Protocol | None = None,
    repeats: int = 5,
    workers: int | None = None,
    results_dir: str | PathLike[str] | None = None,
    seed: int = 0,
    attempt: int = 0,
    max_size: int | None = None,
    device: str = "auto",
    engine: str = "fast",
    executor: str = "local",
    ray_address: str | None = None,
    deadline: float = DEADLINE_SECONDS,
    speculation: bool = True,
) -> pd.DataFrame:
    """Return the threshold of ``architecture`` in independent repeats, one row each.

    The rows are as :func:`visualizations.results.load_results` has them; sizes are numbers of
    sequences. ``protocol`` is by default the model's published one. Probes that the logs in
    ``results_dir`` have are not trained again; without a folder nothing is kept. ``max_size``
    bounds the search. ``executor`` is "local" or "ray", whose cluster is at ``ray_address``, the
    one that this program is connected to, or one that starts here. ``workers`` are processes, by
    default one per CPU that this one may use, or one in all on a GPU; on a cluster that is there
    already, how many jobs are in flight at most, by default as many as it has room for. A job that
    takes more than ``deadline`` seconds, by default a day, is taken for lost and starts again. With
    ``speculation`` workers that no search needs train what verdicts could ask for next: more rows
    in the logs, the same thresholds. A repeat for which memory is too short is left out, with a
    line on stderr.
    Raises :class:`UserError` for what the caller can mend, :class:`OutOfMemory` if no repeat ended.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # A worker is importing the caller's script. Its driver says so; two would be too many.
        os._exit(CALLED_DURING_IMPORT)
    _require_importable(type(architecture))
    for name, value in (("repeats", repeats), ("workers", workers), ("max_size", max_size)):
        if value is not None:
            _require(name, value, 1)
    _require("seed", seed, 0)
    _require("attempt", attempt, 0)
    if not deadline > 0:
        raise UserError(f"deadline must be more than 0 seconds, got {deadline}")
    protocol = protocol or architecture.spec.paper
    configuration = (architecture, protocol, architecture.num_parameters)
    wanted = searches([configuration], repeats, seed, attempt, max_size)
    Probe(architecture, protocol, seed, 0, 1)  # refuses two of different tasks before anything runs
    call = f"find_threshold({architecture!r}, repeats={repeats}, workers={workers}, seed={seed})"
    with tempfile.TemporaryDirectory(prefix="thresholds-") as temporary:
        folder = Path(results_dir if results_dir is not None else temporary).expanduser()
        finished = run_searches(
            *(wanted, folder, engine, device, workers),
            command=call,
            executor=executor,
            ray_address=ray_address,
            deadline=deadline,
            speculation=speculation,
        )
    for search, reason in finished.failures:
        if not finished.rows:
            raise OutOfMemory(reason)
        print(f"repeat {search.repeat} is left out: {reason}", file=sys.stderr)
    spec = architecture.spec
    return with_settings(results_frame([row for _, row in finished.rows]), {spec.name: spec.paper})


def train_probe(
    architecture: Architecture,
    n: int,
    protocol: Protocol | None = None,
    seed: int = 0,
    repeat: int = 0,
    attempt: int = 0,
    device: str = "auto",
    engine: str = "fast",
) -> Outcome:
    """Train on ``n`` sequences in this process; return whether it memorized them, and more.

    The same numbers as a probe of a search give the same outcome. ``protocol`` is by default the
    model's published one. Raises ValueError for an ``n`` that the task does not have,
    :class:`UserError` for other numbers that no probe has.
    """
    for name, value in (("seed", seed), ("repeat", repeat), ("attempt", attempt)):
        _require(name, value, 0)
    protocol = protocol or architecture.spec.paper
    probe = Probe(architecture, protocol, seed, repeat, n, attempt)
    chosen = choose_engine(engine, resolve_device(device), architecture)
    import torch

    # As the workers do: sums of several threads may be in another order.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        [(outcome, _)] = chosen.train([probe])
    finally:
        torch.set_num_threads(threads)
    return outcome


def _require(name: str, value: int, smallest: int) -> None:
    if value < smallest:
        raise UserError(f"{name} must be at least {smallest}, got {value}")


def _require_importable(kind: type) -> None:
    """Refuse a class that only this notebook or prompt knows: workers could not import it."""
    if kind.__module__ == "__main__" and not hasattr(sys.modules["__main__"], "__file__"):
        raise UserError(
            f"worker processes cannot import {kind.__name__}, which is defined here: "
            "put it into a module of its own"
        )
