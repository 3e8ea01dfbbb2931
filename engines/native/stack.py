"""Models of the compiled engine as a stack: one after the other, each on its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from engines.native.model import NativeModel
from training.session import Epoch
from training.start import ProbeStart


class NativeStack:
    """A :class:`training.session.Stack` of :class:`NativeModel`."""

    def __init__(self, starts: Sequence[ProbeStart]) -> None:
        self.models = [NativeModel(start) for start in starts]
        self._kept: dict[int, np.ndarray] = {}

    def train_epoch(self, epochs: Sequence[Epoch | None]) -> None:
        """See :class:`training.session.Stack`."""
        for model, epoch in zip(self.models, epochs, strict=True):
            if epoch is not None:
                model.train_epoch(*epoch)

    def evaluate(self) -> list[tuple[float, float]]:
        """See :class:`training.session.Stack`."""
        return [model.evaluate() for model in self.models]

    def snapshot(self, indices: Sequence[int]) -> None:
        """See :class:`training.session.Stack`."""
        self._kept |= {i: self.models[i].weights() for i in indices}

    def restore(self) -> None:
        """See :class:`training.session.Stack`."""
        for i, weights in self._kept.items():
            self.models[i].load_weights(weights)

    def state_dict(self, index: int) -> dict[str, Tensor]:
        """Return a copy of one model's weights under its module's names."""
        return self.models[index].state_dict()
