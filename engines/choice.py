"""The one place that chooses among the engines, and says why it is not the fast one. No torch."""

from __future__ import annotations

from collections.abc import Mapping

from engines.engine import (
    Engine,
    LinearProgramEngine,
    NativeEngine,
    ReferenceEngine,
    StackedEngine,
)
from engines.native.load import Unavailable, find_engine, load_engine
from training.errors import UserError
from training.probe import Kind
from training.protocol import Protocol
from training.spec import Architecture

REQUESTS = ("fast", "reference", "stacked", "linear-program")


def choose_engine(
    requested: str, device: str, architecture: Architecture, protocol: Protocol
) -> Engine:
    """Return what trains such probes: by the choice of the user, what there is, and speed.

    ``requested`` is one of REQUESTS; ``device`` is "cpu", "cuda" or "mps". Raises
    :class:`UserError` for another request, and for an engine by name that cannot train this.
    """
    if requested not in REQUESTS:
        raise UserError(f"no engine {requested!r}: there are {', '.join(REQUESTS)}")
    if requested == "linear-program":
        if device != "cpu":
            raise UserError("--engine linear-program needs --device cpu")
        return _able(LinearProgramEngine(), architecture, protocol)
    if device == "mps" and (requested == "stacked" or protocol.dtype == "float64"):
        wanted = "--engine stacked" if requested == "stacked" else "--dtype float64"
        raise UserError(f"{wanted} needs float64, which --device mps lacks")
    if requested == "reference" or device == "mps":
        return ReferenceEngine(device)
    if requested == "stacked":
        return _able(StackedEngine(device), architecture, protocol)
    if device == "cpu" and load_engine() and not NativeEngine.why_not(architecture, protocol):
        return NativeEngine()
    form = architecture.spec.stacked
    is_faster = device != "cpu" or (form and architecture.num_parameters <= form.faster_up_to)
    if is_faster and not StackedEngine.why_not(architecture, protocol):
        return StackedEngine(device)
    return ReferenceEngine(device)


def _able(engine: Engine, architecture: Architecture, protocol: Protocol) -> Engine:
    if reason := engine.why_not(architecture, protocol):
        raise UserError(f"--engine {engine.name} {reason}")
    return engine


def fallback_note(requested: str, device: str, engines: Mapping[Kind, Engine]) -> str | None:
    """Return one line when the fast engine cannot train models that it knows, else None."""
    if requested != "fast" or device != "cpu":
        return None
    missing = find_engine()
    used: dict[str, set[str]] = {}  # why not by the compiled engine, and by which instead
    for (architecture, protocol), engine in engines.items():
        if not architecture.spec.native or engine.name == NativeEngine.name:
            continue
        if reason := NativeEngine.why_not(architecture, protocol):
            used.setdefault(f"the compiled engine {reason}", set()).add(engine.name)
        elif isinstance(missing, Unavailable):
            used.setdefault(missing.reason, set()).add(engine.name)
    if not used:
        return None
    names = {"reference": "the reference loop", "stacked": "stacked torch operations"}
    labels = sorted(set().union(*used.values()))
    instead = " or ".join(names[name] for name in labels)
    remedy = f"; {missing.remedy}" if isinstance(missing, Unavailable) else ""
    return (
        f"note: {', '.join(used)}; using {instead} instead, more slowly; these probes are counted "
        f"apart, as {' or '.join(f'engine={name}' for name in labels)}{remedy}"
    )
