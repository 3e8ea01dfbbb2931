"""How n mappings become what a model trains on: ``inputs`` (N, S) and ``targets`` (N, S), int64.

A model answers inputs (B, S) with logits (B, S, V). Where a target is IGNORED, as torch's
``cross_entropy`` has it, no prediction counts: neither for the loss nor for the accuracy nor for
the verdict. With T = 3, the mapping 7 1 4 -> 2 9 5 becomes

    sequence_to_sequence    inputs  7 1 4          targets  2 9 5
    next_token              inputs  7 1 4 2 9      targets  . . 2 9 5      (. is IGNORED)

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dataset.synthetic_generator import Mappings

IGNORED = -100

Examples = tuple[np.ndarray, np.ndarray]
Encoding = Callable[[Mappings], Examples]


def sequence_to_sequence(mappings: Mappings) -> Examples:
    """Return inputs and labels as they are, (N, T): every label is predicted at its position."""
    return mappings.inputs, mappings.labels


def next_token(mappings: Mappings) -> Examples:
    """Return (N, 2T - 1): a causal model reads the input and its own labels up to the last.

    Every label is predicted one position before it is read; what follows a token of the input is
    not random alone, so nothing counts there but the first label after the last.
    """
    inputs, labels = mappings.inputs, mappings.labels
    ignored = np.full((len(inputs), inputs.shape[1] - 1), IGNORED)
    return np.hstack([inputs, labels[:, :-1]]), np.hstack([ignored, labels])
