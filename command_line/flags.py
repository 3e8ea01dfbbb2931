"""Flags of models, protocol and device, shared by every script that trains. Imports no torch."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any, get_type_hints

from command_line.interrupts import import_torch
from command_line.parser import Parser, non_negative_int, positive_int, whole_number
from engines.choice import REQUESTS
from training.errors import UserError
from training.protocol import PRESETS, Protocol, readers
from training.spec import Flag, ModelSpec

DEVICES = ("auto", "cpu", "cuda", "mps")
# Every flag of the training and search scripts but the models' and the protocol's.
SCRIPT_FLAGS = {
    *(
        "help",
        "version",
        "params",
        "num_sequences",
        "seed",
        "attempt",
        "repeat",
        "device",
        "engine",
        "threads",
    ),
    *("json", "dry_run", "history", "save", "protocol", "model", "architecture", "paper"),
    *("repeats", "max_size", "figure", "workers", "results_dir"),
    *("executor", "ray_address", "deadline", "shard"),
}


def add_model_flags(parser: Parser, specs: Sequence[ModelSpec], search: bool = False) -> None:
    """Add the models' own flags, those of one name once; in a ``search`` they take several values.

    Where models agree in a name but not in what it may be, it takes what any of them takes, and
    the architecture refuses the rest. Raises :class:`UserError` for a name that is a flag of the
    scripts, or of several kinds.
    """
    group = parser.add_argument_group("architecture")
    by_name: dict[str, list[tuple[ModelSpec, Flag]]] = {}
    for spec in specs:
        for flag in spec.flags:
            if flag.name in SCRIPT_FLAGS or flag.name in {f.name for f in fields(Protocol)}:
                raise UserError(f"{_dashed(flag.name)} of the model {spec.name} is a script's flag")
            by_name.setdefault(flag.name, []).append((spec, flag))
    for name, owners in by_name.items():
        kinds = {(flag.switch, bool(flag.choices)) for _, flag in owners}
        if len(kinds) > 1:
            models = " and ".join(spec.name for spec, _ in owners)
            raise UserError(f"{_dashed(name)} is not of one kind for the models {models}")
        arguments = _one_value(owners)
        text = _for_each(owners, len(specs), lambda flag: flag.help)
        if search and not owners[0][1].switch:
            arguments["nargs"], arguments["default"] = "+", None
            if any(spec.grid(None).get(name) for spec, _ in owners):
                searched = _for_each(owners, len(owners), lambda flag: flag.searched)
                text += f" (default: {searched})"
        group.add_argument(_dashed(name), help=text, **arguments)


def _one_value(owners: Sequence[tuple[ModelSpec, Flag]]) -> dict[str, Any]:
    """Return argparse's arguments for a flag that takes what it takes in any of its models."""
    flags = [flag for _, flag in owners]
    first = flags[0]
    if first.switch:
        return {"action": "store_true"}
    if first.choices:
        choices = dict.fromkeys(choice for flag in flags for choice in flag.choices)
        return {"choices": tuple(choices), "default": first.default}
    smallest = min(flag.smallest for flag in flags)
    return {
        "type": whole_number(smallest),
        "metavar": first.metavar,
        "default": first.default,
    }


def _for_each(
    owners: Sequence[tuple[ModelSpec, Flag]], models: int, text_of: Callable[[Flag], str]
) -> str:
    """Return a text about a flag, once if its owners agree, with their names if they do not."""
    names: dict[str, list[str]] = {}
    for spec, flag in owners:
        names.setdefault(text_of(flag), []).append(spec.name)
    if len(names) == 1 and len(owners) == models:
        return next(iter(names))
    return "; ".join(f"{', '.join(models)}: {text}" for text, models in names.items())


def _dashed(name: str) -> str:
    return "--" + name.replace("_", "-")


def flag_values(args: argparse.Namespace, spec: ModelSpec) -> dict[str, Any]:
    """Return what the user, or a default, gave for the flags of ``spec``, by name."""
    values = {flag.name: getattr(args, flag.name) for flag in spec.flags}
    return {name: v for name, v in values.items() if v is not None and v is not False}


def _number(kind: type) -> Callable[[str], int | float]:
    def parse(text: str) -> int | float:
        try:
            return kind(text)
        except ValueError:
            what = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(f"{text!r} is not a {what}") from None

    return parse


def add_protocol_flags(parser: Parser, specs: Sequence[ModelSpec]) -> None:
    """Add ``--protocol`` and one flag per :class:`Protocol` field.

    The defaults shown are those of the models in ``specs``.
    """
    group = parser.add_argument_group("protocol (the defaults are the published ones)")
    group.add_argument(
        "--protocol",
        choices=tuple(PRESETS),
        default="paper",
        help="a whole protocol by name; the flags below change single settings of it",
    )
    kinds = get_type_hints(Protocol)
    for field in fields(Protocol):
        defaults = {spec.name: getattr(spec.paper, field.name) for spec in specs}
        if len(set(defaults.values())) == 1:
            shown = str(next(iter(defaults.values())))
        else:
            shown = ", ".join(f"{name} {value}" for name, value in defaults.items())
        kind, choices = kinds[field.name], field.metadata["choices"]
        text = field.metadata["help"]
        arguments: dict[str, Any]
        if field.metadata["is_open"]:
            arguments = {"metavar": "NAME"}
            text += f": {', '.join(choices)} or package.module:NAME"
        elif choices:
            arguments = {"choices": choices}
        else:
            arguments = {"type": _number(kind), "metavar": "N" if kind is int else "X"}
        if found := readers(field.name):
            chooser, names = found
            text += f", for {_dashed(chooser)} {', '.join(names)}"
        group.add_argument(_dashed(field.name), **arguments, help=f"{text} (default: {shown})")


def protocol_from(args: argparse.Namespace, spec: ModelSpec) -> Protocol:
    """Return the preset of ``spec`` that was asked for, with the fields the user set.

    Raises :class:`UserError` for a task, a loss or an optimiser that is not there.
    """
    names = [field.name for field in fields(Protocol)]
    chosen = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    protocol = spec.protocol(args.protocol, **chosen)
    protocol.make_task()
    protocol.find_loss()
    protocol.find_optimizer()
    return protocol


def add_probe_flags(parser: Parser) -> None:
    """Add ``--seed`` and ``--attempt``."""
    parser.add_argument(
        "--seed", type=non_negative_int, metavar="N", default=0, help="base seed of every stream"
    )
    parser.add_argument(
        "--attempt",
        type=non_negative_int,
        metavar="N",
        default=0,
        help="another initialisation, order and dropout for the same data",
    )


def add_engine_flags(parser: Parser) -> None:
    """Add ``--device`` and ``--engine``."""
    parser.add_argument(
        "--device",
        choices=DEVICES,
        default="auto",
        help="where to train; auto is cuda where there is one, else cpu",
    )
    parser.add_argument(
        "--engine",
        choices=REQUESTS,
        default="fast",
        help="fast: the fastest that there is for model and settings; reference: the plain loop "
        "that the others are tested against; stacked: several models at once in torch; "
        "linear-program: no training, but whether any weights of a linear model memorize",
    )


def add_budget_flag(parser: Parser, specs: Sequence[ModelSpec]) -> None:
    """Add ``--params``."""
    texts = {spec.name: spec.budget_help for spec in specs}
    text = "; ".join(f"{name}: {t}" for name, t in texts.items()) if len(specs) > 1 else ""
    parser.add_argument(
        "--params", type=positive_int, metavar="P", help=text or specs[0].budget_help
    )


def resolve_device(name: str) -> str:
    """Return "cpu", "cuda" or "mps"; raise :class:`UserError` for one this machine lacks.

    Imports torch only where the answer depends on it.
    """
    if name not in DEVICES:
        raise UserError(f"no device {name!r}: there are {', '.join(DEVICES)}")
    if name == "cpu" or (name == "auto" and _has_no_gpu()):
        return "cpu"
    import_torch()
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return "cuda" if available["cuda"] else "cpu"
    if not available[name]:
        raise UserError(f"--device {name}: this machine or this torch build has no {name}")
    return name


def _has_no_gpu() -> bool:
    """Return whether it is certain, without torch, that there is none that "auto" would use.

    On Linux a driver shows as one of these devices: of NVIDIA, on its small boards, of AMD, of
    Windows below WSL.
    """
    if sys.platform == "darwin":
        return True
    devices = ("/dev/nvidiactl", "/dev/nvmap", "/dev/kfd", "/dev/dxg")
    return sys.platform == "linux" and not any(os.path.exists(device) for device in devices)
