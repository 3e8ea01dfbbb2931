"""What every benchmark states and needs: hardware, versions, the sgemm rate, its CSV."""

from __future__ import annotations

import io
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

# This checkout's code, whichever one the environment has installed. Every benchmark imports this
# module before anything of the project.
CHECKOUT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from engines.cpu import cpu_name
from engines.native.build import WIDE_LIBRARY
from engines.native.load import engine_compiler, load_engine
from engines.native.model import NativeModel
from engines.native.stack import NativeStack
from training.probe import Probe
from training.session import Epoch
from training.start import start_probe

FOLDER = CHECKOUT / "results" / "benchmarks"


def hardware() -> dict[str, str | int]:
    """Return the CPU, its cores and the versions that matter for a time."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count() or 1,
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "compiler": engine_compiler() or "none",
    }


def has_wide_registers() -> bool:
    """Return whether the engine is there, and is the library for wider registers."""
    library = load_engine()
    return library is not None and Path(library._name).name == WIDE_LIBRARY


def start_native(probe: Probe) -> tuple[NativeModel, Iterator[Epoch]]:
    """Return the probe's compiled model before its first step, and its epochs."""
    start = start_probe(probe)
    return NativeStack([start]).models[0], start.epochs()


def sgemm_rate(size: int = 1024, trials: int = 5) -> float:
    """Return the best rate of a square float32 product, FLOP per second of one thread."""
    a, b = torch.rand(size, size), torch.rand(size, size)
    out = torch.empty(size, size)
    best = min(_seconds(lambda: torch.mm(a, b, out=out)) for _ in range(trials))
    return 2 * size**3 / best


def _seconds(work) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def report(rows: list[dict], name: str, keys: Sequence[str] = ()) -> None:
    """Print the table and write it, with hardware and versions, to results/benchmarks/NAME.csv.

    With ``keys``, columns of both, the file's rows that differ in them from every new one stay,
    before the new ones.
    """
    table = pd.DataFrame(rows)
    facts = hardware()
    print(", ".join(f"{k} {v}" for k, v in facts.items()))
    print(table.to_string(index=False, float_format=lambda x: f"{x:.3g}"))
    FOLDER.mkdir(parents=True, exist_ok=True)
    path = FOLDER / f"{name}.csv"
    kept = pd.DataFrame()
    if keys and path.exists():
        kept = pd.read_csv(path, dtype=str, keep_default_na=False)  # text stays as it is written
        measured = {tuple(str(row[key]) for key in keys) for row in rows}
        kept = kept[[found not in measured for found in zip(*(kept[k] for k in keys), strict=True)]]
    written = io.StringIO(table.assign(**facts).to_csv(index=False, float_format="%.6g"))
    new = pd.read_csv(written, dtype=str, keep_default_na=False)
    pd.concat([kept, new]).to_csv(path, index=False, lineterminator="\n")
    print(f"wrote {path}")
