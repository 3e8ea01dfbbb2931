"""Dropout masks for stacked models: from the probes' own streams, or hashed on the device.

There are as many masks as lanes, M of them. The streams are those of the first lanes; the others
have no model.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from training.streams import MaskStream


class HostMasks:
    """The same draws as the reference loop's, made on the CPU, one stream per model."""

    def __init__(
        self, streams: list[MaskStream], lanes: int, count: int, device: torch.device
    ) -> None:
        self._streams, self._device = streams, device
        self._shape = (lanes, count)

    def draw(self, active: list[bool], steps_done: Tensor) -> Tensor:
        """Return scaled masks (M, count); an inactive model's stream stands still."""
        masks = np.zeros(self._shape, np.float32)
        for lane, stream in enumerate(self._streams):
            if active[lane]:
                masks[lane, stream.draw(self._shape[1]) >= stream.dropped] = stream.scale
        return torch.from_numpy(masks).to(self._device)


class DeviceMasks:
    """Masks from a counter-based hash (splitmix64's finaliser) of seed, step and position.

    No state but the model's own step count, so that a captured CUDA graph can draw them; the
    draws differ from the reference's, their distribution does not.
    """

    def __init__(
        self, streams: list[MaskStream], lanes: int, count: int, device: torch.device
    ) -> None:
        seeds = np.zeros((lanes, 1), np.int64)
        seeds[: len(streams)] = np.stack([stream.draw(4) for stream in streams]).view(np.int64)
        self._seeds = torch.from_numpy(seeds).to(device)  # (M, 1)
        self._position = torch.arange((count + 3) // 4, device=device)
        self._count = count
        # A 16-bit draw read as signed is uniform too: compare with the threshold shifted alike.
        self._threshold = streams[0].dropped - (1 << 15)
        self._scale = streams[0].scale

    def draw(self, active: list[bool], steps_done: Tensor) -> Tensor:
        """Return scaled masks (M, count) for each model's step ``steps_done`` (M,) of int64."""
        counter = steps_done.unsqueeze(1) * len(self._position) + self._position
        words = _mix(self._seeds + counter * _signed(0x9E3779B97F4A7C15))  # (M, words)
        draws = words.contiguous().view(torch.int16)[:, : self._count]
        return (draws >= self._threshold).to(torch.float32) * self._scale


def _signed(word: int) -> int:
    """A 64-bit word as the int64 with the same bits; products wrap alike."""
    return word - (1 << 64) if word >= 1 << 63 else word


def _shift_right(words: Tensor, bits: int) -> Tensor:
    """Logical shift of int64, whose own shift copies the sign."""
    return (words >> bits) & ((1 << (64 - bits)) - 1)


def _mix(words: Tensor) -> Tensor:
    words = (words ^ _shift_right(words, 30)) * _signed(0xBF58476D1CE4E5B9)
    words = (words ^ _shift_right(words, 27)) * _signed(0x94D049BB133111EB)
    return words ^ _shift_right(words, 31)
