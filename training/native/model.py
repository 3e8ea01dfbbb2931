"""The Python side of the compiled models: what the MLP and the transformer share."""

from __future__ import annotations

import ctypes
import math
import weakref
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from training.native.build import load_library, why_unavailable
from training.protocol import Protocol
from training.streams import MaskStream


class Settings(ctypes.Structure):
    """Mirror of ``native::Settings`` in model.h, field by field."""

    _fields_: ClassVar = [
        *[(name, ctypes.c_int64) for name in ("n", "vocab_size", "seq_len", "batch_size")],
        ("total_steps", ctypes.c_int64),
        *[(name, ctypes.c_double) for name in ("learning_rate", "weight_decay", "beta1", "beta2")],
        *[(name, ctypes.c_double) for name in ("epsilon", "grad_clip")],
        *[(name, ctypes.c_int64) for name in ("has_dropout", "dropped")],
        ("mask_scale", ctypes.c_double),
        ("mask_state", ctypes.c_uint64 * 4),
    ]


def available_library(name: str) -> ctypes.CDLL:
    """Return the compiled library; raise RuntimeError if this machine cannot have it."""
    library = load_library(name)
    if library is None:
        raise RuntimeError(why_unavailable(name))
    return library


class NativeModel:
    """One model in training, held in the compiled library; it starts from a module's weights.

    A subclass gives the ``name`` of its library and returns the model's numbers from :meth:`shape`.
    The library makes the model by ``Model* NAME_create(const Settings*, const int64_t* shape, const
    int64_t* inputs, const int64_t* labels)``, null when memory is short. Its C++ class declares the
    parameters in the module's ``named_parameters`` order. Everything else is here: the settings,
    the step counter (in the library) with its horizon of max_epochs * ceil(n / batch_size) steps,
    the weights in both layouts.

    The object shares no memory with the module. It takes up the mask stream where it stands and
    leaves the Python object as it is. The library releases the interpreter lock while it works,
    but one object must not be used by two threads at once.
    """

    name: ClassVar[str]

    def __init__(
        self,
        module: nn.Module,
        inputs: np.ndarray,
        labels: np.ndarray,
        protocol: Protocol,
        masks: MaskStream | None = None,
    ) -> None:
        """Start from ``module``'s weights; ``inputs`` and ``labels`` are (n, T) of int64.

        Raises RuntimeError if the library is unavailable, MemoryError if memory is short and
        ValueError if the data do not fit the module or a needed mask stream is missing.
        """
        self._library = library = _declare(available_library(self.name))
        inputs = _tokens(inputs, module.vocab_size)
        labels = _tokens(labels, module.vocab_size)
        if inputs.shape != labels.shape or len(inputs) == 0:
            raise ValueError(f"inputs {inputs.shape} and labels {labels.shape} do not match")
        self._n, self._tokens = len(inputs), inputs.size
        settings = _settings(module, inputs.shape, protocol, masks)
        numbers = self.shape(module)
        make = getattr(library, f"{self.name}_create")
        make.restype = ctypes.c_void_p
        make.argtypes = [ctypes.c_void_p] * 4
        self._model = make(
            ctypes.byref(settings),
            (ctypes.c_int64 * max(len(numbers), 1))(*numbers),
            inputs.ctypes.data,
            labels.ctypes.data,
        )
        if not self._model:
            raise MemoryError("no memory for the model")
        weakref.finalize(self, library.model_destroy, self._model)

        self._shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
        start = [p.detach().to(torch.float32).flatten() for p in module.parameters()]
        flat = np.ascontiguousarray(torch.cat(start).numpy())
        library.model_import(self._model, flat.ctypes.data)
        stored = library.model_weights(self._model)
        self._weights = np.ctypeslib.as_array(
            ctypes.cast(stored, ctypes.POINTER(ctypes.c_float)),
            (library.model_weight_count(self._model),),
        )
        self.learning_rate = math.nan  # of the last optimiser step taken

    def shape(self, module: nn.Module) -> list[int]:
        """Return the whole numbers that the library needs to make the model."""
        raise NotImplementedError

    def train_epoch(self, order: np.ndarray) -> None:
        """Take the optimiser steps of one epoch; ``order`` is a permutation of range(n)."""
        order = np.ascontiguousarray(order, dtype=np.int64)
        if order.shape != (self._n,):
            raise ValueError(f"the order must have shape ({self._n},), got {order.shape}")
        rate = self._library.model_train_epoch(self._model, order.ctypes.data)
        if math.isnan(rate):
            raise ValueError(f"the order must hold numbers from 0 to {self._n - 1}")
        self.learning_rate = rate

    def evaluate(self) -> tuple[float, float]:
        """Return (mean cross-entropy in nats per token, share of correct tokens), dropout off."""
        correct = ctypes.c_int64()
        loss = self._library.model_evaluate(self._model, ctypes.byref(correct))
        return loss / self._tokens, correct.value / self._tokens

    def weights(self) -> np.ndarray:
        """Return a copy of the weights in the library's own layout, for :meth:`load_weights`."""
        return self._weights.copy()

    def load_weights(self, copy: np.ndarray) -> None:
        """Restore weights that :meth:`weights` returned; the optimiser's state stays."""
        self._weights[:] = copy

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of the weights under the module's names and in its shapes."""
        flat = torch.empty(sum(math.prod(shape) for shape in self._shapes.values()))
        self._library.model_export(self._model, flat.data_ptr())
        parts = flat.split([math.prod(shape) for shape in self._shapes.values()])
        named = zip(self._shapes.items(), parts, strict=True)
        return {name: part.reshape(shape).clone() for (name, shape), part in named}


def _tokens(array: np.ndarray, vocab_size: int) -> np.ndarray:
    """Return ``array`` (n, T) as contiguous int64; the library trusts its range."""
    array = np.ascontiguousarray(array, dtype=np.int64)
    if array.ndim != 2 or (array.size and not 0 <= array.min() <= array.max() < vocab_size):
        raise ValueError(f"tokens must be an (n, T) array of numbers from 0 to {vocab_size - 1}")
    return array


def _settings(
    module: nn.Module, shape: tuple[int, int], protocol: Protocol, masks: MaskStream | None
) -> Settings:
    n, seq_len = shape
    if seq_len != module.seq_len:
        raise ValueError(f"the module takes sequences of {module.seq_len} tokens, got {seq_len}")
    settings = Settings(
        n=n,
        vocab_size=module.vocab_size,
        seq_len=seq_len,
        total_steps=protocol.max_epochs * math.ceil(n / protocol.batch_size),
        **{
            name: getattr(protocol, name)
            for name in ("batch_size", "learning_rate", "weight_decay", "beta1", "beta2")
        },
        epsilon=protocol.epsilon,
        grad_clip=protocol.grad_clip,
    )
    if protocol.dropout > 0:
        if masks is None:
            raise ValueError("a protocol with dropout needs a mask stream")
        settings.has_dropout = 1
        settings.dropped, settings.mask_scale = masks.dropped, masks.scale
        settings.mask_state[:] = masks.state()
    return settings


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """Tell ctypes the signatures of the functions that serve every model."""
    pointer = ctypes.c_void_p
    for name, result, arguments in (
        ("model_destroy", None, [pointer]),
        ("model_train_epoch", ctypes.c_double, [pointer, pointer]),
        ("model_evaluate", ctypes.c_double, [pointer, pointer]),
        ("model_import", None, [pointer, pointer]),
        ("model_export", None, [pointer, pointer]),
        ("model_weight_count", ctypes.c_int64, [pointer]),
        ("model_weights", pointer, [pointer]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library
