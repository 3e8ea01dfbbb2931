"""How n examples become what a model trains on: ``inputs`` (N, S) and ``targets`` (N, positions).

A model answers inputs (B, S) with logits (B, positions, label vocabulary). Where a target is
IGNORED, as torch's ``cross_entropy`` has it, no prediction counts: neither for the loss nor for the
accuracy nor for the verdict. With T = 3, the mapping 7 1 4 -> 2 9 5 and the fact 7 1 4 -> 2 become

    sequence_to_sequence    inputs  7 1 4          targets  2 9 5
                                    7 1 4                   . . 2          (. is IGNORED)
    whole_label                     7 1 4                   2 9 5
                                    7 1 4                   2
    next_token                      7 1 4 2 9               . . 2 9 5
                                    7 1 4                   . . 2

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dataset.synthetic_generator import Mappings

IGNORED = -100

Examples = tuple[np.ndarray, np.ndarray]
Encoding = Callable[[Mappings], Examples]


def whole_label(mappings: Mappings) -> Examples:
    """Return inputs and labels as they are: the model's outputs are the label's tokens."""
    return mappings.inputs, mappings.labels


def sequence_to_sequence(mappings: Mappings) -> Examples:
    """Return inputs and labels, both (N, T): a label of L <= T tokens is read off the last L."""
    inputs, labels = mappings.inputs, mappings.labels
    return inputs, _padded(labels, inputs.shape[1])


def next_token(mappings: Mappings) -> Examples:
    """Return (N, T + L - 1): a causal model reads the input and its own labels up to the last.

    Every label is predicted one position before it is read; what follows a token of the input is
    not random alone, so nothing counts there but the first label after the last.
    """
    inputs, labels = mappings.inputs, mappings.labels
    read = np.hstack([inputs, labels[:, :-1]])
    return read, _padded(labels, read.shape[1])


def _padded(labels: np.ndarray, positions: int) -> np.ndarray:
    """Return ``labels`` (N, L) at the last of ``positions``, the others IGNORED."""
    ignored = np.full((len(labels), positions - labels.shape[1]), IGNORED)
    return np.hstack([ignored, labels])
