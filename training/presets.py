"""Named protocols: what each changes of a model's published one. A preset is one entry here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

PRESETS: Mapping[str, Mapping[str, int | float | str]] = MappingProxyType(
    {
        "paper": {},
        # Trains until every sequence is memorized or 5,000 epochs are over: nothing regularises,
        # nothing stops early, and the first perfect epoch is the verdict.
        "converged": {
            "patience": 0,
            "dropout": 0.0,
            "weight_decay": 0.0,
            "schedule": "cosine",
            "warmup_epochs": 50,
            "max_epochs": 5000,
            "verdict": "first_perfect",
        },
    }
)
