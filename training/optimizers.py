"""How a training run updates its weights, by the protocol's ``optimizer``.

An entry of ``OPTIMIZERS`` is all that another one takes. Imports no torch before one is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from typing import Protocol as Interface

if TYPE_CHECKING:
    from torch import Tensor, nn

    from training.protocol import Protocol

Group = dict[str, Any]  # "params", a list; "weight_decay"; "lr"


class Updates(Interface):
    """What trains one model, such as an optimiser of torch.

    Before every step the "lr" of each of ``param_groups`` is set to the schedule's learning rate.
    """

    param_groups: list[Group]

    def step(self) -> object:
        """Update every parameter that has a gradient."""


@dataclass(frozen=True)
class StackedUpdate:
    """The same for many models at once (engines/stacked.py), M of P numbers each.

    ``step(weights (M, P), gradient (M, P), moments, rate (M,) float64, steps_done (M,) float64,
    decay (P,), protocol)`` returns new weights and new moments: a sequence of (M, P), as many as
    ``moments`` says, which begin as zeros. Where all arguments are 0, so are the new ones.
    """

    moments: int
    step: Callable[
        [Tensor, Tensor, Sequence[Tensor], Tensor, Tensor, Tensor, Protocol],
        tuple[Tensor, Sequence[Tensor]],
    ]


@dataclass(frozen=True)
class Optimizer:
    """An optimiser: ``start(module, protocol)`` returns what updates the module's parameters.

    ``settings`` are the fields of the protocol that not every optimiser reads. One without
    ``stacked`` trains by the reference engine alone.
    """

    start: Callable[[nn.Module, Protocol], Updates]
    settings: tuple[str, ...] = ()
    stacked: StackedUpdate | None = None


def parameter_groups(module: nn.Module, weight_decay: float) -> list[Group]:
    """Return groups of what is trained: decay for all but biases and LayerNorm parameters."""
    from torch import nn

    norms = {p for m in module.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()}
    decayed: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        exempt = parameter in norms or name.endswith("bias")
        (plain if exempt else decayed).append(parameter)
    groups: list[Group] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": plain, "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


# AdamW.


def _adamw(groups: list[Group], protocol: Protocol) -> Updates:
    import torch

    betas = protocol.beta1, protocol.beta2
    return torch.optim.AdamW(groups, lr=protocol.learning_rate, betas=betas, eps=protocol.epsilon)


def _start_adamw(module: nn.Module, protocol: Protocol) -> Updates:
    """Loshchilov and Hutter, Decoupled Weight Decay Regularization (2019): torch's own."""
    return _adamw(parameter_groups(module, protocol.weight_decay), protocol)


def _stacked_adamw(
    weights: Tensor,
    gradient: Tensor,
    moments: Sequence[Tensor],
    rate: Tensor,
    steps_done: Tensor,
    decay: Tensor,
    protocol: Protocol,
) -> tuple[Tensor, Sequence[Tensor]]:
    import torch

    correction1 = 1 - protocol.beta1 ** (steps_done + 1)
    correction2 = 1 - protocol.beta2 ** (steps_done + 1)
    step_size = (rate / correction1).to(weights.dtype).unsqueeze(1)
    root2 = correction2.sqrt().to(weights.dtype).unsqueeze(1)
    moment1 = torch.lerp(moments[0], gradient, 1 - protocol.beta1)
    moment2 = moments[1] * protocol.beta2 + (1 - protocol.beta2) * gradient * gradient
    decayed = weights * (1 - rate.to(weights.dtype).unsqueeze(1) * decay)
    update = step_size * moment1 / (moment2.sqrt() / root2 + protocol.epsilon)
    return decayed - update, (moment1, moment2)


# SGD.


def _start_sgd(module: nn.Module, protocol: Protocol) -> Updates:
    """Torch's SGD with momentum m: b = m * b + (g + decay * w), then w = w - lr * b.

    So weight decay is the gradient of decay / 2 * w^2, after the clipping, and passes through the
    momentum; AdamW, Muon and SOAP shrink the weights apart from that.
    """
    import torch

    groups = parameter_groups(module, protocol.weight_decay)
    return torch.optim.SGD(groups, lr=protocol.learning_rate, momentum=protocol.momentum)


def _stacked_sgd(
    weights: Tensor,
    gradient: Tensor,
    moments: Sequence[Tensor],
    rate: Tensor,
    steps_done: Tensor,
    decay: Tensor,
    protocol: Protocol,
) -> tuple[Tensor, Sequence[Tensor]]:
    moment = protocol.momentum * moments[0] + (gradient + decay * weights)
    return weights - rate.to(weights.dtype).unsqueeze(1) * moment, (moment,)


# Muon.


class _Together:
    """Several optimisers, each with its own parameters, as one."""

    def __init__(self, optimizers: Sequence[Updates]) -> None:
        self._optimizers = optimizers
        self.param_groups = [group for o in optimizers for group in o.param_groups]

    def step(self) -> None:
        """Take a step with every one."""
        for optimizer in self._optimizers:
            optimizer.step()


def hidden_matrices(module: nn.Module, protocol: Protocol) -> list[nn.Parameter]:
    """Return the parameters that Muon trains: every matrix but embeddings and the output layer.

    An embedding is the matrix of an ``nn.Embedding``, of which a token looks up one row. The first
    layer of an MLP is none: it is a map of V*T features, of which T are on, and counts as hidden.
    The output layer is the last matrix, if it has a row per logit, of one token or of the whole
    label, and nothing but a bias comes after it. Where the head is the token embedding the last
    matrix is a hidden one: a norm follows, or it has another number of rows.
    """
    from torch import nn

    tables = {m.weight for m in module.modules() if isinstance(m, nn.Embedding)}
    named = {name: p for name, p in module.named_parameters() if p.requires_grad}
    matrices = {name: p for name, p in named.items() if p.ndim == 2 and p not in tables}
    task = protocol.make_task()
    logits = task.label_vocab_size, task.label_vocab_size * task.label_len
    if matrices:
        *_, last = matrices
        after = [*named][[*named].index(last) + 1 :]
        if len(matrices[last]) in logits and after in ([], [last.replace("weight", "bias")]):
            del matrices[last]
    return [*matrices.values()]


def _start_muon(module: nn.Module, protocol: Protocol) -> Updates:
    """Muon for the hidden matrices, AdamW for everything else: embeddings, output layer, vectors.

    Jordan et al., Muon: An optimizer for hidden layers in neural networks (2024), by torch, which
    orthogonalises in bfloat16 whatever the dtype. Its steps are scaled to the size of AdamW's, 0.2
    * sqrt(max(rows, columns)), so that both share one learning rate and weight decay: Liu et al.,
    Muon is Scalable for LLM Training (2025). A model without hidden matrices has AdamW alone.
    """
    import torch

    chosen = set(hidden_matrices(module, protocol))
    hidden: list[Group] = []
    others: list[Group] = []
    for group in parameter_groups(module, protocol.weight_decay):
        params = group["params"]
        hidden.append({**group, "params": [p for p in params if p in chosen]})
        others.append({**group, "params": [p for p in params if p not in chosen]})
    optimizers = [_adamw(others, protocol)]
    if chosen:
        muon = torch.optim.Muon(
            hidden,
            lr=protocol.learning_rate,
            momentum=protocol.momentum,
            adjust_lr_fn="match_rms_adamw",
        )
        optimizers.append(muon)
    return _Together(optimizers)


# SOAP.


class _Soap:
    """Adam in the eigenbases of Shampoo's averages: Vyas et al., SOAP: Improving and Stabilizing
    Shampoo using Adam (2024), algorithm 3.

    For a matrix G (rows, columns) these are the averages of G G^T and G^T G. Every
    ``soap_interval`` steps their eigenvectors are improved by one step of power iteration and QR.
    As in the authors' code the first gradient gives the first bases and no step, vectors are
    trained by Adam, and the weights decay after the step.
    """

    def __init__(self, groups: list[Group], protocol: Protocol) -> None:
        self.param_groups: list[Group] = [{**g, "lr": protocol.learning_rate} for g in groups]
        self._protocol = protocol
        self._states: dict[nn.Parameter, _SoapState] = {}

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        import torch

        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._update(parameter, parameter.grad, group["lr"], group["weight_decay"])

    def _update(self, parameter: nn.Parameter, gradient: Tensor, rate: float, decay: float) -> None:
        protocol = self._protocol
        state = self._states.get(parameter)
        if state is None:
            self._states[parameter] = _SoapState(gradient, protocol)
            return
        parameter.sub_(rate * state.direction(gradient))
        parameter.mul_(1 - rate * decay)
        state.follow(gradient)


class _SoapState:
    """What SOAP keeps of one parameter, in the order of its axes; of a vector no bases."""

    def __init__(self, gradient: Tensor, protocol: Protocol) -> None:
        import torch

        self._protocol, self._steps = protocol, 0
        self._moment1, self._moment2 = torch.zeros_like(gradient), torch.zeros_like(gradient)
        axes = range(gradient.ndim if gradient.ndim > 1 else 0)
        share = 1 - protocol.beta2
        self._covariances = [share * _covariance(gradient, axis) for axis in axes]
        # From the largest eigenvalue on. Of a gradient that is no number nothing is to be learned,
        # but that the run diverges.
        self._bases = [
            torch.linalg.eigh(c.nan_to_num(0.0, 0.0, 0.0)).eigenvectors.flip(1)
            for c in self._covariances
        ]

    def direction(self, gradient: Tensor) -> Tensor:
        """Return what to subtract from the weights, times the learning rate."""
        beta1, beta2 = self._protocol.beta1, self._protocol.beta2
        self._steps += 1
        self._moment1.lerp_(gradient, 1 - beta1)
        self._moment2.lerp_(_rotated(gradient, self._bases).square(), 1 - beta2)
        scale = math.sqrt(1 - beta2**self._steps) / (1 - beta1**self._steps)
        adam = _rotated(self._moment1, self._bases) / (
            self._moment2.sqrt() + self._protocol.epsilon
        )
        return scale * _rotated(adam, [basis.T for basis in self._bases])

    def follow(self, gradient: Tensor) -> None:
        """Take the gradient into the averages, and every few steps the bases after them."""
        import torch

        for axis, covariance in enumerate(self._covariances):
            covariance.lerp_(_covariance(gradient, axis), 1 - self._protocol.beta2)
        if self._steps % self._protocol.soap_interval:
            return
        for axis, (covariance, basis) in enumerate(
            zip(self._covariances, self._bases, strict=True)
        ):
            product = covariance @ basis
            order = (basis * product).sum(0).argsort(descending=True)  # by the eigenvalues
            self._moment2 = self._moment2.index_select(axis, order)
            self._bases[axis] = torch.linalg.qr(product[:, order]).Q


def _covariance(gradient: Tensor, axis: int) -> Tensor:
    """Return the products of a gradient's slices along ``axis``, (size, size) of it."""
    slices = gradient.movedim(axis, 0).flatten(1)
    return slices @ slices.T


def _rotated(x: Tensor, bases: Sequence[Tensor]) -> Tensor:
    """Return ``x`` with each axis in the basis of the columns of its one of ``bases``."""
    import torch

    for basis in bases:  # each takes the first axis away and adds its own at the end
        x = torch.tensordot(x, basis, dims=([0], [0]))
    return x


def _start_soap(module: nn.Module, protocol: Protocol) -> Updates:
    return _Soap(parameter_groups(module, protocol.weight_decay), protocol)


_ADAM = ("beta1", "beta2", "epsilon")
OPTIMIZERS = {
    "adamw": Optimizer(_start_adamw, _ADAM, StackedUpdate(2, _stacked_adamw)),
    "sgd": Optimizer(_start_sgd, ("momentum",), StackedUpdate(1, _stacked_sgd)),
    "muon": Optimizer(_start_muon, (*_ADAM, "momentum")),
    "soap": Optimizer(_start_soap, (*_ADAM, "soap_interval")),
}
