"""The Python interface, for notebooks and other programs.

    from threshold_search.api import find_threshold, train_probe

A script that calls :func:`find_threshold` needs ``if __name__ == "__main__":`` around the call,
because workers are new processes, which import the script; a notebook does not.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import sys
from collections.abc import Mapping
from typing import Any

import pandas as pd

from command_line.flags import resolve_device
from engines.choice import choose_engine
from threshold_search.executors.local import CALLED_DURING_IMPORT
from threshold_search.models import find_spec
from threshold_search.options import Options, require_whole
from threshold_search.plan import configurations, searches
from threshold_search.questions.question import Configuration
from threshold_search.run import run_searches
from training.errors import OutOfMemory, UserError
from training.probe import Outcome, Probe
from training.protocol import Protocol
from training.spec import Architecture, ModelSpec
from visualizations.results import results_frame, with_settings

_OPTIONS = tuple(field.name for field in dataclasses.fields(Options))
_ARGUMENTS = ("model", "protocol", "options", "repeats", "seed", "attempt", "max_size")


def find_threshold(
    model: Architecture | ModelSpec | str,
    protocol: Protocol | None = None,
    options: Options | None = None,
    *,
    repeats: int = 5,
    seed: int = 0,
    attempt: int = 0,
    max_size: int | None = None,
    **names: Any,
) -> pd.DataFrame:
    """Return the thresholds of ``model`` in independent repeats, one row each.

    ``model`` is an architecture, or a spec, or what ``--model`` calls it; of these two ``names``
    has the sizes: ``params``, the budget in parameters, and the model's own flags, one value or a
    list each, as a search takes them. ``names`` may also have the fields of
    :class:`~threshold_search.options.Options`, which go before those of ``options``. The rows are
    as :func:`visualizations.results.load_results` has them; sizes are numbers of sequences.
    ``protocol`` is by default the model's published one. ``max_size`` bounds the search. Probes
    that the logs in ``results_dir`` have are not trained again; without a folder nothing is kept.
    A repeat for which memory is too short is left out, with a line on stderr.

        find_threshold(MLPArchitecture(8, 1), repeats=2, max_size=64)
        find_threshold("mlp", params=10_000, layers=[1, 2], workers=4)

    Raises :class:`UserError` for what the caller can mend, :class:`OutOfMemory` if no repeat ended.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # A worker is importing the caller's script. Its driver says so; two would be too many.
        os._exit(CALLED_DURING_IMPORT)
    if not isinstance(options or Options(), Options):
        raise UserError(f"options must be an Options value, got {options!r}")
    own = {name: names.pop(name) for name in _OPTIONS if name in names}
    options = dataclasses.replace(options or Options(), **own)
    wanted = _configurations(model, protocol, names)
    _require_importable(type(wanted[0][0]))
    require_whole("repeats", repeats, 1)
    require_whole("seed", seed, 0)
    require_whole("attempt", attempt, 0)
    if max_size is not None:
        require_whole("max_size", max_size, 1)
    questions = searches(wanted, repeats, seed, attempt, max_size)
    said = {**names, "repeats": repeats, "workers": options.workers, "seed": seed}
    shown = model.name if isinstance(model, ModelSpec) else model
    call = ", ".join([repr(shown), *(f"{name}={value!r}" for name, value in said.items())])
    finished = run_searches(questions, options, command=f"find_threshold({call})")
    if finished.failures:
        if not finished.rows:
            raise OutOfMemory(finished.failures)
        print(finished.failures, file=sys.stderr)
    spec = wanted[0][0].spec
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
        require_whole(name, value, 0)
    probe = Probe(architecture, protocol or architecture.spec.paper, seed, repeat, n, attempt)
    chosen = choose_engine(engine, resolve_device(device), *probe.kind)
    import torch

    # As the workers do: sums of several threads may be in another order.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        [(outcome, _)] = chosen.train([probe])
    finally:
        torch.set_num_threads(threads)
    return outcome


def _configurations(
    model: Architecture | ModelSpec | str, protocol: Protocol | None, sizes: Mapping[str, Any]
) -> list[Configuration]:
    """Return the configurations that a model and its ``sizes`` mean."""
    if isinstance(model, Architecture):
        _require_names(sizes, {}, "an architecture")
        probe = Probe(model, protocol or model.spec.paper, 0, 0, 1)
        return [(*probe.kind, probe.architecture.num_parameters)]
    spec = find_spec(model) if isinstance(model, str) else model
    if not isinstance(spec, ModelSpec):
        raise UserError(f"a model is an architecture, a ModelSpec or a name, got {model!r}")
    flags = {flag.name: flag for flag in spec.flags}
    if taken := flags.keys() & {*_ARGUMENTS, *_OPTIONS, "params"}:
        raise UserError(f"{min(taken)} of the model {spec.name} is an option of find_threshold")
    _require_names(sizes, {"params": None, **flags}, f"the model {spec.name}")
    given = {n: v if isinstance(v, list | tuple) else [v] for n, v in sizes.items()}
    if empty := [name for name, values in given.items() if not values]:
        raise UserError(f"{empty[0]} has no value")
    budgets = given.pop("params", [None])
    for budget in budgets:
        if budget is not None:
            require_whole("params", budget, 1)
    for name, values in given.items():
        choices = flags[name].choices or ((False, True) if flags[name].switch else ())
        for value in values:
            if not choices:
                require_whole(name, value, flags[name].smallest)
            elif value not in choices:
                raise UserError(f"no {name} {value!r}: there are {', '.join(map(str, choices))}")
    protocol = protocol or spec.paper
    return [row for budget in budgets for row in configurations(spec, protocol, budget, given)]


def _require_names(names: Mapping[str, Any], sizes: Mapping[str, Any], of: str) -> None:
    if unknown := names.keys() - sizes.keys():
        there = ", ".join([*_ARGUMENTS[1:], *_OPTIONS, *sizes])
        raise UserError(f"find_threshold has no {min(unknown)!r} for {of}: there are {there}")


def _require_importable(kind: type) -> None:
    """Refuse a class that only this notebook or prompt knows: workers could not import it."""
    if kind.__module__ == "__main__" and not hasattr(sys.modules["__main__"], "__file__"):
        raise UserError(
            f"worker processes cannot import {kind.__name__}, which is defined here: "
            "put it into a module of its own"
        )
