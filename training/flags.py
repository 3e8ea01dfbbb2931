"""Flags that set the protocol and the device, shared by every script that trains."""

from __future__ import annotations

import argparse
from dataclasses import MISSING, fields
from typing import get_type_hints

from training.cli import Parser, interrupts_held_back
from training.errors import UserError
from training.protocol import Protocol

DEVICES = ("auto", "cpu", "cuda", "mps")
ENGINES = ("fast", "reference")


def _number(kind: type):
    def parse(text: str):
        try:
            return kind(text)
        except ValueError:
            what = "whole number" if kind is int else "number"
            raise argparse.ArgumentTypeError(f"{text!r} is not a {what}") from None

    return parse


def add_protocol_flags(parser: Parser, models: tuple[str, ...]) -> None:
    """Add one flag per :class:`Protocol` field; the defaults shown are those of ``models``."""
    group = parser.add_argument_group("protocol (the defaults are the published ones)")
    kinds = get_type_hints(Protocol)
    for field in fields(Protocol):
        assert field.default is not MISSING
        defaults = {getattr(Protocol.paper(model), field.name) for model in models}
        if len(defaults) == 1:
            shown = str(defaults.pop())
        else:
            shown = ", ".join(f"{m} {getattr(Protocol.paper(m), field.name)}" for m in models)
        kind, choices = kinds[field.name], field.metadata["choices"]
        parsed = {"choices": choices} if choices else {"type": _number(kind)}
        group.add_argument(
            "--" + field.name.replace("_", "-"),
            **parsed,
            metavar=None if choices else "N" if kind is int else "X",
            help=f"{field.metadata['help']} (default: {shown})",
        )


def protocol_from(args: argparse.Namespace, model: str) -> Protocol:
    """Return the published protocol of ``model`` with the fields the user set."""
    names = [field.name for field in fields(Protocol)]
    chosen = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    return Protocol.paper(model, **chosen)


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
        choices=ENGINES,
        default="fast",
        help="fast code, or the plain reference loop it is tested against",
    )


def import_torch() -> None:
    """Import torch; a Ctrl-C waits, because in some places it would abort the process instead."""
    with interrupts_held_back():
        import torch  # noqa: F401


def resolve_device(name: str) -> str:
    """Return "cpu", "cuda" or "mps"; raise :class:`UserError` for one this machine lacks."""
    import torch  # here, so that reading --help does not wait for it

    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if name == "auto":
        return "cuda" if available["cuda"] else "cpu"
    if not available[name]:
        raise UserError(f"--device {name}: this machine or this torch build has no {name}")
    return name
