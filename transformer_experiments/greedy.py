"""What a decoder-only model says of its mappings: with the label before it, and from x alone.

Under teacher forcing a model reads the label's own tokens and predicts the next one; this is what
it is trained for and judged by. In greedy decoding it reads its own predictions instead. Where
every token is right under teacher forcing, the first prediction is the label's first token, so the
second is made from the same prefix, and so on: both are the same then.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dataset.random_stream import RandomStream
from dataset.synthetic_generator import Mappings
from training.loop import EVALUATION_ROWS
from training.module import SequenceModel

Report = dict[str, float | list[float]]


def label_logits(module: SequenceModel, x: Tensor, y: Tensor) -> Tensor:
    """Return logits (N, L, V) of every label token, given ``x`` and the tokens of ``y`` before it.

    ``x`` is (N, T), ``y`` (N, L), both int64. Dropout is off afterwards.
    """
    module.eval()
    tokens = torch.cat([x, y[:, :-1]], dim=1)  # (N, T + L - 1)
    with torch.no_grad():
        blocks = [module(rows)[:, x.shape[1] - 1 :] for rows in tokens.split(EVALUATION_ROWS)]
    return torch.cat(blocks)


def decode_greedily(module: SequenceModel, x: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Return the labels (N, ``length``) that the model writes after ``x`` (N, T); their logits.

    One full forward pass per token, the first of equal logits wins. All passes are of the same
    size, with zeros where nothing has been written: a causal model does not see them, and a pass
    of another size could round another way.
    """
    y = x.new_zeros(len(x), length)
    logits = []
    for position in range(length):
        logits.append(label_logits(module, x, y)[:, position])
        y[:, position] = logits[-1].argmax(-1)
    return y, torch.stack(logits, dim=1)


def report(module: SequenceModel, mappings: Mappings, seed: int = 0) -> Report:
    """Return what the model knows of ``mappings``, by name; shares are of 1.

    ``teacher_forced_accuracy`` and ``greedy_accuracy`` are shares of right label tokens,
    ``exact_sequences`` the share of labels that greedy decoding has right as a whole.
    ``smallest_logit_margin`` is the least lead of the largest logit over the second in any of the
    predictions: where it is near 0, code that rounds differently may predict another token.
    ``accuracy_by_position`` is the accuracy of each label token under teacher forcing.
    The ``other_inputs_`` are the same with every x replaced by tokens drawn uniformly from
    ``seed``: what is still right the model reads off the label's tokens alone, or guesses. Logits
    that are NaN count as wrong.
    """
    x, y = torch.from_numpy(mappings.inputs), torch.from_numpy(mappings.labels)
    forced = label_logits(module, x, y)
    _, greedy = decode_greedily(module, x, y.shape[1])
    drawn = RandomStream(seed).integers(forced.shape[-1], x.numel())
    other_x = torch.from_numpy(drawn.astype("int64")).view(x.shape)
    by_position = _hits(forced, y).mean(0)
    by_position_other = _hits(label_logits(module, other_x, y), y).mean(0)
    right = _hits(greedy, y)
    return {
        "teacher_forced_accuracy": by_position.mean().item(),
        "greedy_accuracy": right.mean().item(),
        "exact_sequences": right.prod(1).mean().item(),
        "smallest_logit_margin": min(_margin(forced), _margin(greedy)),
        "accuracy_by_position": by_position.tolist(),
        "other_inputs_accuracy": by_position_other.mean().item(),
        "other_inputs_accuracy_by_position": by_position_other.tolist(),
    }


def _hits(logits: Tensor, y: Tensor) -> Tensor:
    """Return 1 where the largest of ``logits`` (N, T, V) is that of ``y`` (N, T), else 0."""
    return ((logits.argmax(-1) == y) & ~logits.isnan().any(-1)).double()


def _margin(logits: Tensor) -> float:
    largest, second = logits.topk(2).values.unbind(-1)
    return (largest - second).min().item()
