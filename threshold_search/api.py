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

from threshold_search.plan import searches
from threshold_search.run import run_searches
from threshold_search.workers import CALLED_DURING_IMPORT
from training.errors import OutOfMemory, UserError
from training.probe_types import Outcome, Probe
from training.protocol import Protocol
from training.spec import Architecture

if TYPE_CHECKING:
    from os import PathLike


def find_threshold(
    architecture: Architecture,
    protocol: Protocol | None = None,
    repeats: int = 5,
    workers: int = 2,
    results_dir: str | PathLike[str] | None = None,
    seed: int = 0,
    max_size: int | None = None,
    device: str = "auto",
    engine: str = "fast",
) -> pd.DataFrame:
    """Return the threshold of ``architecture`` in independent repeats, one row each.

    The columns are those of MODEL_results.csv (results/README.md); sizes are numbers of sequences.
    ``protocol`` is by default the model's published one. Probes that the logs in ``results_dir``
    have are not trained again; without a folder nothing is kept. ``max_size`` bounds the search.
    Raises :class:`UserError` for what the caller can mend, :class:`OutOfMemory` where memory is
    short.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # A worker is importing the caller's script. Its driver says so; two would be too many.
        os._exit(CALLED_DURING_IMPORT)
    _require_importable(type(architecture))
    protocol = protocol or architecture.spec.paper
    wanted = searches(
        [(architecture, protocol, architecture.num_parameters)], repeats, seed, max_size=max_size
    )
    with tempfile.TemporaryDirectory(prefix="thresholds-") as temporary:
        folder = Path(results_dir if results_dir is not None else temporary)
        finished = run_searches(wanted, folder, engine, device, workers)
    if finished.failures:
        raise OutOfMemory(finished.failures[0][1])
    return pd.DataFrame([row for _, row in finished.rows])


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
    model's published one. Raises ValueError for an ``n`` that the task does not have.
    """
    from command_line.flags import resolve_device
    from engines.engine import choose_engine

    protocol = protocol or architecture.spec.paper
    probe = Probe(architecture, protocol, seed, repeat, n, attempt)
    [(outcome, _)] = choose_engine(engine, resolve_device(device), architecture).train([probe])
    return outcome


def _require_importable(kind: type) -> None:
    """Refuse a class that only this notebook or prompt knows: workers could not import it."""
    if kind.__module__ == "__main__" and not hasattr(sys.modules["__main__"], "__file__"):
        raise UserError(
            f"worker processes cannot import {kind.__name__}, which is defined here: "
            "put it into a module of its own"
        )
