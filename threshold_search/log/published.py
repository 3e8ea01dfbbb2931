"""What ``paper`` stands for in a results folder's labels: protocols.json, by model.

A model's published protocol may change, or be another in somebody else's checkout; its rows do not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from threshold_search.log.reader import content_of
from threshold_search.models import MODELS
from training.errors import UserError
from training.protocol import Protocol

FILE_NAME = "protocols.json"


def recorded(folder: Path) -> dict[str, Protocol]:
    """Return the published protocols by which the folder's rows were labelled, by model.

    None in a folder from before there was such a record. A setting that the record is older than
    has its default. Raises :class:`UserError` for a file that is no record.
    """
    path = folder / FILE_NAME
    content = content_of(path) if path.exists() else b""
    try:
        return {
            model: Protocol(**settings) for model, settings in json.loads(content or b"{}").items()
        }
    except (ValueError, TypeError, AttributeError, UserError) as error:
        raise UserError(f"{path} is no record of published protocols: {error}") from None


def of_model(model: str, known: Mapping[str, Protocol]) -> Protocol:
    """Return what ``paper`` stands for: as known, else a registered model's own, or the MLP's."""
    registered = MODELS[model].paper if model in MODELS else Protocol()
    return known.get(model, registered)


def difference(one: Protocol, other: Protocol) -> str:
    """Return the first setting that two published protocols have not in common, "" if none."""
    for name, value in vars(one).items():
        if value != getattr(other, name):
            return f"{name}={value}, not {getattr(other, name)}"
    return ""


def text_of(protocols: Mapping[str, Protocol]) -> str:
    """Return the content of a record."""
    return json.dumps({m: vars(p) for m, p in sorted(protocols.items())}, indent=1) + "\n"
