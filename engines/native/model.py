"""The Python side of the models in the engine."""

from __future__ import annotations

import ctypes
import functools
import math
import weakref
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from dataset.encoding import IGNORED
from engines.native.load import Unavailable, find_engine
from training.protocol import Protocol
from training.spec import NativeForm
from training.start import ProbeStart
from training.streams import MaskStream


class Settings(ctypes.Structure):
    """Mirror of ``native::Settings`` in model.h, field by field."""

    _fields_: ClassVar = [
        *[(name, ctypes.c_int64) for name in ("n", "vocab_size", "seq_len")],
        *[(name, ctypes.c_int64) for name in ("label_vocab_size", "label_len", "batch_size")],
        *[(name, ctypes.c_double) for name in ("weight_decay", "beta1", "beta2")],
        *[(name, ctypes.c_double) for name in ("epsilon", "grad_clip")],
        *[(name, ctypes.c_int64) for name in ("has_dropout", "dropped")],
        ("mask_scale", ctypes.c_double),
        ("mask_state", ctypes.c_uint64 * 4),
    ]


class _Model(ctypes.Structure):
    """``native::Model``, known by its address alone."""


_MODEL = ctypes.POINTER(_Model)
_FLOATS = np.ctypeslib.ndpointer(np.float32, flags="C_CONTIGUOUS")
_INTS = np.ctypeslib.ndpointer(np.int64, flags="C_CONTIGUOUS")


@functools.cache
def declared_engine() -> ctypes.CDLL:
    """Return the engine with its functions' signatures; raise RuntimeError if there is none."""
    library = find_engine()
    if isinstance(library, Unavailable):
        raise RuntimeError(library.reason)
    signatures = [
        ("model_destroy", None, [_MODEL]),
        # Called every epoch: checking an ndpointer costs a tenth of a small step.
        (
            "model_train_epoch",
            ctypes.c_bool,
            [
                _MODEL,
                ctypes.POINTER(ctypes.c_int64),
                ctypes.c_int64,
                ctypes.POINTER(ctypes.c_double),
            ],
        ),
        ("model_evaluate", ctypes.c_double, [_MODEL, ctypes.POINTER(ctypes.c_int64)]),
        ("model_import", None, [_MODEL, _FLOATS]),
        ("model_export", None, [_MODEL, _FLOATS]),
        ("model_parameter_count", ctypes.c_int64, [_MODEL]),
        ("model_weight_count", ctypes.c_int64, [_MODEL]),
        ("model_weights", ctypes.POINTER(ctypes.c_float), [_MODEL]),
    ]
    for name, result, arguments in signatures:
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


@functools.cache
def _creator(form: NativeForm) -> Callable[..., Any]:
    """Return a function (settings, shape, inputs, targets) -> model of ``form``'s C function.

    The struct of the shape (models.h) has the fields of ``form``, all int64.
    """
    create = getattr(declared_engine(), f"{form.name}_create")
    shape = ctypes.c_int64 * len(form.shape)
    create.restype = _MODEL
    create.argtypes = [ctypes.POINTER(Settings), ctypes.POINTER(shape), _INTS, _INTS]
    return lambda settings, values, *data: create(settings, shape(*values), *data)


class NativeModel:
    """One model in training, held in the engine; it starts from a module's weights.

    The engine's model declares its parameters in the module's ``named_parameters`` order.

    The object shares no memory with the module. It takes up the mask stream where it stands and
    leaves the Python object as it is. The engine releases the interpreter lock while it works,
    but one object must not be used by two threads at once.
    """

    def __init__(self, start: ProbeStart) -> None:
        """Start from the module's weights; the engine has a form of the architecture.

        Raises RuntimeError if the engine is unavailable, MemoryError if memory is short and
        ValueError if the data do not fit the module or no target counts.
        """
        self._library = library = declared_engine()
        architecture, protocol, module = (
            start.probe.architecture,
            start.probe.protocol,
            start.module,
        )
        form = architecture.native_form
        assert form is not None
        data = start.inputs, start.targets
        inputs, targets = (np.ascontiguousarray(x, dtype=np.int64) for x in data)
        if len(inputs) != len(targets) or inputs.ndim != 2 or inputs.size == 0:
            raise ValueError(f"inputs {inputs.shape} and targets {targets.shape} do not match")
        is_counted = targets != IGNORED
        task = protocol.make_task()
        _check_tokens(inputs, task.vocab_size)
        _check_tokens(targets[is_counted], task.label_vocab_size)
        self._n, self._counted = len(inputs), int(is_counted.sum())
        self._batch_size = protocol.batch_size
        self._model = _creator(form)(
            engine_settings(inputs.shape, targets.shape[1], protocol, start.masks),
            [getattr(architecture, name) for name in form.shape],
            inputs,
            targets,
        )
        if not self._model:
            raise MemoryError("no memory for the model")
        weakref.finalize(self, library.model_destroy, self._model)

        self._shapes = {name: tuple(p.shape) for name, p in module.named_parameters()}
        count = sum(math.prod(shape) for shape in self._shapes.values())
        own_count = library.model_parameter_count(self._model)
        if count != own_count:
            raise ValueError(
                f"a model of sequences of {inputs.shape[1]} tokens has {own_count} parameters, "
                f"the module {count}"
            )
        weights = [p.detach().to("cpu", torch.float32).flatten() for p in module.parameters()]
        library.model_import(self._model, torch.cat(weights).numpy())
        self._weights = np.ctypeslib.as_array(
            library.model_weights(self._model), (library.model_weight_count(self._model),)
        )

    def train_epoch(self, order: np.ndarray, learning_rates: np.ndarray) -> None:
        """Take the optimiser steps of one epoch.

        ``order`` (rows,) is a permutation of range(n) or whole batches from the beginning of one;
        ``learning_rates`` (steps,) has one per batch.
        """
        order = np.ascontiguousarray(order, dtype=np.int64)
        learning_rates = np.ascontiguousarray(learning_rates, dtype=np.float64)
        rows = order.size
        is_whole = rows == self._n or (0 < rows < self._n and rows % self._batch_size == 0)
        if order.ndim != 1 or not is_whole:
            raise ValueError(
                f"the order must have shape {(self._n,)} or be whole batches, got {order.shape}"
            )
        steps = math.ceil(rows / self._batch_size)
        if learning_rates.shape != (steps,):
            shape = learning_rates.shape
            raise ValueError(f"the learning rates must have shape {(steps,)}, got {shape}")
        order_data = ctypes.c_int64.from_buffer(order.data)
        rates = ctypes.c_double.from_buffer(learning_rates.data)
        if not self._library.model_train_epoch(self._model, order_data, rows, rates):
            raise ValueError(f"the order must hold numbers from 0 to {self._n - 1}")

    def evaluate(self) -> tuple[float, float]:
        """Return (mean cross-entropy in nats per token, share of correct tokens), dropout off.

        Both are over the targets that count.
        """
        correct = ctypes.c_int64()
        loss = self._library.model_evaluate(self._model, correct)
        return loss / self._counted, correct.value / self._counted

    def weights(self) -> np.ndarray:
        """Return a copy of the weights in the engine's own layout, for :meth:`load_weights`."""
        return self._weights.copy()

    def load_weights(self, copy: np.ndarray) -> None:
        """Restore weights that :meth:`weights` returned; the optimiser's state stays."""
        self._weights[:] = copy

    def state_dict(self) -> dict[str, Tensor]:
        """Return a copy of the weights under the module's names and in its shapes."""
        sizes = [math.prod(shape) for shape in self._shapes.values()]
        flat = np.empty(sum(sizes), np.float32)
        self._library.model_export(self._model, flat)
        named = zip(self._shapes.items(), torch.from_numpy(flat).split(sizes), strict=True)
        return {name: part.reshape(shape).clone() for (name, shape), part in named}


def _check_tokens(tokens: np.ndarray, vocab_size: int) -> None:
    """Raise ValueError unless there are some, all in the vocabulary: the engine trusts that."""
    if not tokens.size:
        raise ValueError("no target counts")
    if not 0 <= tokens.min() <= tokens.max() < vocab_size:
        raise ValueError(f"tokens must be numbers from 0 to {vocab_size - 1}")


def engine_settings(
    data_shape: tuple[int, int], positions: int, protocol: Protocol, masks: MaskStream
) -> Settings:
    """Return what the engine has to know besides a model's shape, data and weights.

    ``data_shape`` is (n, S), that of the inputs; targets are (n, ``positions``).
    """
    n, seq_len = data_shape
    task = protocol.make_task()
    settings = Settings(
        n=n,
        vocab_size=task.vocab_size,
        seq_len=seq_len,
        label_vocab_size=task.label_vocab_size,
        label_len=positions,
        # A short last batch takes as many dropout draws as a full one; without dropout rows that no
        # batch can have would only cost memory.
        batch_size=protocol.batch_size if protocol.dropout > 0 else min(protocol.batch_size, n),
        **{
            name: getattr(protocol, name)
            for name in ("weight_decay", "beta1", "beta2", "epsilon", "grad_clip")
        },
    )
    if protocol.dropout > 0:
        settings.has_dropout = 1
        settings.dropped, settings.mask_scale = masks.dropped, masks.scale
        settings.mask_state[:] = masks.state()
    return settings
