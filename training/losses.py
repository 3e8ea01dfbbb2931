"""What a training run may minimise, by the protocol's ``loss``.

An entry of ``LOSSES`` is all that another one takes. Whatever is minimised, the loss of the logs is
the cross-entropy in nats per token. Imports no torch before a loss is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dataset.encoding import IGNORED

if TYPE_CHECKING:
    from torch import Tensor

    from training.protocol import Protocol


@dataclass(frozen=True)
class Loss:
    """A loss: of a batch, the mean of ``per_token`` times weights over the targets that count.

    ``per_token(logits (R, C), targets (R,), protocol)`` returns (R,), 0 where a target is IGNORED.
    The weights are 1, unless ``reweight(weights (N, L), logits (N, L, C), targets (N, L),
    protocol)`` returns others (N, L), where L are the positions that the model answers at: it is
    asked after every epoch, for the next one, with the logits of the whole set, dropout off. The
    mean divides by how many targets count, not by their weights. ``settings`` are the fields of the
    protocol that other losses do not read.
    """

    per_token: Callable[[Tensor, Tensor, Protocol], Tensor]
    reweight: Callable[[Tensor, Tensor, Tensor, Protocol], Tensor] | None = None
    settings: tuple[str, ...] = ()


def _cross_entropy(logits: Tensor, targets: Tensor, protocol: Protocol) -> Tensor:
    """-log softmax(z)_y, in nats."""
    from torch.nn import functional as F

    return F.cross_entropy(logits, targets, reduction="none", ignore_index=IGNORED)


def _margin(logits: Tensor, targets: Tensor, protocol: Protocol) -> Tensor:
    """0.5 * sum over the wrong classes k of relu(1 - (z_y - z_k))^2.

    The squared hinge loss of Weston and Watkins, Support vector machines for multi-class pattern
    recognition (ESANN 1999), with a margin of 1.
    """
    from torch.nn import functional as F

    counted = targets != IGNORED
    right = targets.clamp(min=0).unsqueeze(1)  # (R, 1); of those that do not count any class
    lacking = F.relu(1 - (logits.gather(1, right) - logits))  # (R, C)
    lacking = lacking.scatter(1, right, 0.0)  # the right class has nothing to keep away from
    return 0.5 * lacking.square().sum(1) * counted


LOSSES = {"cross_entropy": Loss(_cross_entropy), "margin": Loss(_margin)}
