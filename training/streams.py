"""The random streams of one probe.

Every probe owns four independent streams: data, initialisation, batch order and dropout. They
derive from (seed, repeat, n) through NumPy's SeedSequence, so that an outcome depends on nothing
that ran before or beside it; another attempt has the same data and three other streams. What is
drawn from them is made of raw words by our own arithmetic (see dataset/random_stream.py): a probe
starts from the same bits on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from dataset.random_stream import RandomStream, little_endian

UINT16_LEVELS = 1 << 16


class ProbeStreams:
    """The four streams of the probe (seed, repeat, n, attempt), all non-negative integers."""

    def __init__(self, seed: int, repeat: int, n: int, attempt: int = 0) -> None:
        identity = [seed, repeat, n]
        children = np.random.SeedSequence(identity).spawn(4)
        self.data = children[0]
        if attempt > 0:
            # Not as one more number of the identity: NumPy makes two of a seed beyond 32 bits.
            children = np.random.SeedSequence(identity, spawn_key=(attempt,)).spawn(4)
        self._init, self._order, self._dropout = children[1:]

    def initial_weights(self) -> RandomStream:
        """Return the stream that a model's ``draw_weights`` takes, at its beginning."""
        return RandomStream(self._init)

    def batch_orders(self, n: int) -> Iterator[np.ndarray]:
        """Yield one permutation of range(n) per epoch, (n,) int64, without end."""
        stream = RandomStream(self._order)
        while True:
            yield stream.permutation(n)

    def dropout_masks(self, rate: float) -> MaskStream:
        """Return the stream of dropout masks with drop probability ``rate``."""
        return MaskStream(self._dropout, rate)


def uint16_rate(rate: float) -> tuple[int, float]:
    """Return (levels dropped of 65536, scale of the kept values) for a drop probability.

    The masks compare 16-bit draws with the first number, so the probability is rounded to a
    multiple of 2**-16; the scale uses the rounded one, which keeps the expectation exact.
    """
    dropped = min(round(rate * UINT16_LEVELS), UINT16_LEVELS - 1)
    return dropped, UINT16_LEVELS / (UINT16_LEVELS - dropped)


class MaskStream:
    """Dropout masks from SFC64, one 16-bit draw per element: cheaper than torch's bernoulli.

    One optimiser step takes one draw, so every implementation that trains this probe, whatever
    order its layers run in, sees the same masks.
    """

    def __init__(self, seed: np.random.SeedSequence, rate: float) -> None:
        self._bits = np.random.SFC64(seed)
        self.dropped, self.scale = uint16_rate(rate)

    def state(self) -> list[int]:
        """Return the generator's four 64-bit words, for code that goes on drawing elsewhere."""
        return self._bits.state["state"]["state"].tolist()

    def draw(self, count: int) -> np.ndarray:
        """Return the next ``count`` 16-bit draws, (count,) uint16, from whole 64-bit words.

        The lowest bits of a word come first.
        """
        words = self._bits.random_raw((count + 3) // 4)
        return little_endian(words, itemsize=2)[:count]
