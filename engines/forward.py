"""The forward pass of many models at once: a spec's hand-written one, or vmap over its module."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from training.errors import UserError
from training.module import SequenceModel
from training.start import ProbeStart

# In training one mask per dropout site (M, B * elements per row), 0 or the scale, or none without
# dropout; None in evaluation.
Keep = Sequence[Tensor] | None
# (parameters by their module's names (M, ...), inputs (M, B, S), masks) -> logits
# (M, B, positions, label vocabulary). Inputs are tokens or, for a task with vectors, real numbers.
# No model's logits depend on another's parameters or inputs.
Forward = Callable[[dict[str, Tensor], Tensor, Keep], Tensor]


def forward_of(starts: Sequence[ProbeStart], device: torch.device) -> Forward:
    """Return the forward pass of the probes' model, all of one architecture and protocol.

    Raises :class:`UserError` for a module that vmap cannot run, if there is no hand-written form.
    """
    architecture = starts[0].probe.architecture
    form = architecture.spec.stacked
    if form is None:
        if reason := _why_not(starts):
            raise UserError(
                f"the module of {architecture.spec.name} cannot train with others at once "
                f"({reason}): give --engine reference, or its spec vmap=False"
            )
        return VmapForward(starts[0].module, device)
    logits = form.load()

    def forward(parameters: dict[str, Tensor], tokens: Tensor, keep: Keep) -> Tensor:
        def drop(site: int, x: Tensor) -> Tensor:
            return x * keep[site].view(x.shape) if keep else x

        return logits(architecture, parameters, tokens, drop)

    return forward


class VmapForward:
    """A module's own forward for many sets of parameters: vmap over ``functional_call``.

    Autograd runs through the vmap, whose operations are then those of many models at once.
    """

    def __init__(self, module: SequenceModel, device: torch.device) -> None:
        # Gives its code and its buffers; every parameter is replaced in the call.
        self._module = copy.deepcopy(module).to(device)
        self._layers = [layer for layer, _ in self._module.dropout_sites()]

    def __call__(self, parameters: dict[str, Tensor], tokens: Tensor, keep: Keep) -> Tensor:
        """Return logits for inputs (M, B, S); see ``Forward``."""
        module, layers = self._module, self._layers
        if module.training != (keep is not None):
            module.train(keep is not None)
        models, batch = tokens.shape[:2]
        masks = [mask.view(models, batch, -1) for mask in keep or ()]

        def one_model(parameters: dict[str, Tensor], tokens: Tensor, masks: list[Tensor]) -> Tensor:
            for layer, mask in zip(layers, masks, strict=bool(masks)):
                layer.step_mask = mask  # of one model, as far as the layer can see
            return functional_call(module, parameters, (tokens,))

        try:
            with _ProductsForLookups():
                return vmap(one_model)(parameters, tokens, masks)
        finally:  # what vmap hands out means nothing outside of it
            for layer in layers:
                layer.step_mask = None


def _why_not(starts: Sequence[ProbeStart]) -> str | None:
    """Return why vmap cannot train the modules of ``starts``, or None."""
    modules = [start.module for start in starts]
    for name, buffer in modules[0].named_buffers():
        if not all(torch.equal(buffer, module.get_buffer(name)) for module in modules):
            return f"the buffer {name} differs between probes"
    try:
        _rehearse(starts[0])
    except (RuntimeError, ValueError) as error:
        return str(error).strip().partition("\n")[0]
    return None


def _rehearse(start: ProbeStart) -> None:
    """Go forward and backward with two models on the meta device, as in a step and an evaluation.

    Its tensors have no data: what looks at a value fails, as it would while a graph is captured.
    """
    meta = torch.device("meta")
    forward = VmapForward(start.module, meta)
    parameters = {
        name: parameter.new_empty((2, *parameter.shape), device=meta).requires_grad_()
        for name, parameter in start.module.named_parameters()
    }
    inputs = torch.from_numpy(start.inputs[:1])
    tokens = inputs.new_empty((2, 2, *inputs.shape[1:]), device=meta)
    sites = start.module.dropout_sites() if start.probe.protocol.dropout > 0 else []
    keep = [torch.empty((2, 2 * per_row), device=meta) for _, per_row in sites]
    trained = [parameters[name] for name, p in start.module.named_parameters() if p.requires_grad]
    torch.autograd.grad(forward(parameters, tokens, keep).sum(), trained)
    forward(parameters, tokens, None)


class _ProductsForLookups(TorchFunctionMode):
    """Embeddings as products with one-hot rows, which choose the same numbers.

    A lookup's gradient adds up the rows of equal tokens in an order that can depend on the model's
    place in the stack; a product's does not.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is F.embedding:
            return _embedding(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _embedding(
    tokens: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Return rows (..., d) of ``weight`` (rows, d); arguments are those of ``F.embedding``."""
    if max_norm is not None or scale_grad_by_freq:
        return F.embedding(
            tokens, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse
        )
    if padding_idx is not None:  # this row gets no gradient
        is_padding = torch.arange(len(weight), device=weight.device) == padding_idx
        weight = torch.where(is_padding.unsqueeze(1), weight.detach(), weight)
    return F.one_hot(tokens, len(weight)).to(weight.dtype) @ weight
