"""The rival: the same training step in JAX, an epoch of batches as one compiled scan.

XLA compiles a whole epoch, with batch selection, dropout, forward, backward, clipping and AdamW of
every step, and the state is donated. Of every choice the fastest was kept: the parameters as one
vector, so that AdamW is a handful of loops and not a handful per parameter; rows gathered in the
MLP's first layer, but a one-hot product for embeddings; attention by einsum; masks hashed from a
counter inside the loops that use them, because the fastest generator of jax.random (threefry; rbg
is slower on a CPU) costs three to four times as much. JAX is imported when it is needed.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import multiprocessing
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch

from mlp_experiments.mlp_utils import MLPArchitecture
from training.optimizers import parameter_groups
from training.probe import Probe
from training.protocol import Protocol
from training.spec import Architecture
from training.start import ProbeStart, start_probe
from training.streams import uint16_rate
from transformer_experiments.transformer_utils import TransformerArchitecture

EPOCHS = 3  # of one measurement
LAYER_NORM_EPSILON = 1e-5


def installed() -> bool:
    """Return whether JAX can be imported."""
    return importlib.util.find_spec("jax") is not None


def jax_epoch(probe: Probe) -> tuple[Callable[[], float], float]:
    """Return (a function that trains in JAX: seconds per step, best epoch; compile seconds).

    The training happens in a process of its own, pinned to one CPU: XLA has no setting that keeps
    all its threads to one core. The process ends once the function is garbage.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    context.Process(target=_serve, args=(probe, theirs), daemon=True).start()
    theirs.close()
    compile_seconds = ours.recv()

    def epoch() -> float:
        ours.send(EPOCHS)
        return ours.recv()

    return epoch, compile_seconds


def _serve(probe: Probe, pipe: Connection) -> None:
    """Compile, send the seconds that took; then train as many epochs as asked, send the best."""
    if hasattr(os, "sched_setaffinity"):  # before JAX starts threads, which inherit it
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    own_flags = FORMS[type(probe.architecture)].xla_flags
    os.environ["XLA_FLAGS"] = " ".join(["--xla_cpu_multi_thread_eigen=false", *own_flags])
    import jax

    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # no handing over between threads
    begin = start_probe(probe)
    model, epochs = JaxModel(begin), begin.epochs()
    model.train_epoch(*next(epochs))  # warm
    pipe.send(model.compile_seconds)
    try:
        while count := pipe.recv():
            times = []
            for _ in range(count):
                start = time.perf_counter()
                model.train_epoch(*next(epochs))
                times.append(time.perf_counter() - start)
            pipe.send(min(times) / model.steps)
    except EOFError:
        pass


class JaxModel:
    """One model in training: weights of a torch module, batches and learning rates as given."""

    def __init__(self, start: ProbeStart) -> None:
        """Copy the module's weights and compile.

        Raises ValueError unless the batches are full: a scan's steps have one shape.
        """
        import jax
        import jax.numpy as jnp
        from jax.flatten_util import ravel_pytree

        module, probe = start.module, start.probe
        architecture, protocol = probe.architecture, probe.protocol
        n = len(start.inputs)
        self.steps, rest = divmod(n, protocol.batch_size)
        if rest:
            raise ValueError(f"{n} rows are not whole batches of {protocol.batch_size}")
        # Linear weights are (inputs, outputs) here, so that no product needs a transposed copy.
        self._transposed = {
            f"{name}.weight" for name, m in module.named_modules() if hasattr(m, "out_features")
        } | {name for name, _ in module.named_parameters() if name.endswith("in_proj_weight")}
        decayed = {id(p) for p in parameter_groups(module, protocol.weight_decay)[0]["params"]}
        weights, decay = {}, {}
        for name, p in module.named_parameters():
            array = p.detach().numpy()
            weights[name] = array.T if name in self._transposed else array
            decay[name] = np.full(array.shape, id(p) in decayed, np.float32)
            decay[name] = decay[name].T if name in self._transposed else decay[name]
        flat, self._unravel = ravel_pytree(weights)
        forward = functools.partial(FORMS[type(architecture)].forward, architecture)
        step = _training_step(forward, self._unravel, ravel_pytree(decay)[0], protocol)
        inputs = jnp.asarray(start.inputs, jnp.int32)
        one_hot = jax.nn.one_hot(start.targets, protocol.vocab_size)  # (N, T, V)

        def epoch(state, order, rates):
            def batch(state, rows_and_rate):
                rows, rate = rows_and_rate
                return step(state, inputs[rows], one_hot[rows], rate), None

            return jax.lax.scan(batch, state, (order.reshape(self.steps, -1), rates))[0]

        self._state = (flat, jnp.zeros_like(flat), jnp.zeros_like(flat), jnp.zeros((), jnp.float32))
        begin = time.perf_counter()
        shapes = np.arange(n, dtype=np.int32), np.zeros(self.steps, np.float32)
        self._epoch = jax.jit(epoch, donate_argnums=0).lower(self._state, *shapes).compile()
        self.compile_seconds = time.perf_counter() - begin

    def train_epoch(self, order: np.ndarray, learning_rates: np.ndarray) -> None:
        """Train one epoch and wait for its end.

        ``order`` (N,) is a permutation of the rows, ``learning_rates`` (steps,) one per batch.
        """
        import jax

        given = order.astype(np.int32), learning_rates.astype(np.float32)
        self._state = jax.block_until_ready(self._epoch(self._state, *given))

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the weights, named and shaped as the torch module's."""
        arrays = {name: np.array(a) for name, a in self._unravel(self._state[0]).items()}
        return {
            name: torch.from_numpy(a.T if name in self._transposed else a)
            for name, a in arrays.items()
        }


def _training_step(forward, unravel, decay, protocol: Protocol):
    """Return a function of (state, inputs, one-hot labels, learning rate) to the next state.

    A state is the vector of parameters, its two averages and the number of steps so far.
    """
    import jax
    import jax.numpy as jnp
    from jax.flatten_util import ravel_pytree

    beta1, beta2 = protocol.beta1, protocol.beta2

    def loss(weights, inputs, labels, count):
        logits = forward(weights, inputs, _dropout(protocol.dropout, count))  # (B, T, V)
        return (jax.nn.logsumexp(logits, -1) - (logits * labels).sum(-1)).mean()

    def step(state, inputs, labels, rate):
        flat, first, second, count = state
        gradient = ravel_pytree(jax.grad(loss)(unravel(flat), inputs, labels, count))[0]
        if protocol.grad_clip > 0:
            norm = jnp.sqrt(jnp.sum(gradient * gradient))
            gradient = gradient * jnp.minimum(protocol.grad_clip / (norm + 1e-6), 1.0)
        count = count + 1
        first = first + (1 - beta1) * (gradient - first)
        second = beta2 * second + (1 - beta2) * gradient * gradient
        # 1 - beta**count, without the cancellation that float32 has in it at the first steps
        correction1 = -jnp.expm1(count * math.log(beta1))
        correction2 = -jnp.expm1(count * math.log(beta2))
        root = jnp.sqrt(second) / jnp.sqrt(correction2) + protocol.epsilon
        flat = flat * (1 - rate * protocol.weight_decay * decay)
        return flat - rate / correction1 * first / root, first, second, count

    return step


def _dropout(rate: float, count):
    """Return a function that drops elements of an array; every site of a step gets other masks."""
    import jax
    import jax.numpy as jnp

    dropped, scale = uint16_rate(rate)
    site = 0

    def drop(x):
        nonlocal site
        if rate == 0:
            return x
        site += 1
        # A counter per element, hashed by multiplications and shifts to 16 random bits.
        start = (count.astype(jnp.uint32) * 64 + site) * jnp.uint32(0x632BE5AB)
        bits = (jax.lax.iota(jnp.uint32, x.size) + start) * jnp.uint32(0x9E3779B9)
        bits = (bits ^ (bits >> 16)) * jnp.uint32(0x7FEB352D)
        bits = (bits ^ (bits >> 15)) * jnp.uint32(0x846CA68B)
        kept = (bits >> 16).reshape(x.shape) >= dropped
        return x * (kept.astype(jnp.float32) * scale)

    return drop


def _mlp(architecture: MLPArchitecture, weights, tokens, drop):
    """Return logits (B, T, V) of the MLP for ``tokens`` (B, T)."""
    import jax
    import jax.numpy as jnp

    batch, seq_len = tokens.shape
    vocab_size = weights["linears.0.weight"].shape[0] // seq_len
    rows = tokens + vocab_size * jnp.arange(seq_len)
    x = weights["linears.0.weight"][rows].sum(1) + weights["linears.0.bias"]  # (B, h)
    for i in range(1, architecture.num_layers + 1):
        x = drop(jax.nn.relu(x)) @ weights[f"linears.{i}.weight"] + weights[f"linears.{i}.bias"]
    return x.reshape(batch, seq_len, vocab_size)


def _transformer(architecture: TransformerArchitecture, weights, tokens, drop):
    """Return logits (B, T, V) of the transformer for ``tokens`` (B, T)."""
    import jax
    import jax.numpy as jnp

    batch, seq_len = tokens.shape
    vocab_size, width = weights["token_embedding.weight"].shape
    heads = architecture.num_heads
    causal = jnp.triu(jnp.full((seq_len, seq_len), -jnp.inf), 1)

    def linear(name, x):
        return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def norm(name, x):
        centred = x - x.mean(-1, keepdims=True)
        variance = (centred * centred).mean(-1, keepdims=True)
        scaled = centred * jax.lax.rsqrt(variance + LAYER_NORM_EPSILON)
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def attention(name, x, source, mask):
        weight, bias = weights[f"{name}.in_proj_weight"], weights[f"{name}.in_proj_bias"]
        if x is source:  # one product
            parts = jnp.split(x @ weight + bias, 3, -1)
        else:
            key_value = source @ weight[:, width:] + bias[width:]
            parts = [x @ weight[:, :width] + bias[:width], *jnp.split(key_value, 2, -1)]
        query, key, value = (p.reshape(batch, seq_len, heads, -1) for p in parts)
        scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(width // heads) + mask
        mixed = jnp.einsum("bhqk,bkhd->bqhd", drop(jax.nn.softmax(scores, -1)), value)
        return linear(f"{name}.out_proj", mixed.reshape(batch, seq_len, width))

    one_hot = jax.nn.one_hot(tokens, vocab_size)  # (B, T, V)
    memory = one_hot @ weights["token_embedding.weight"] + weights["position_embedding.weight"]
    x = memory  # (B, T, d)
    for i in range(architecture.num_layers):
        layer = f"layers.{i}"
        x = norm(f"{layer}.norm1", x + drop(attention(f"{layer}.self_attn", x, x, causal)))
        x = norm(f"{layer}.norm2", x + drop(attention(f"{layer}.multihead_attn", x, memory, 0.0)))
        hidden = drop(jax.nn.relu(linear(f"{layer}.linear1", x)))  # (B, T, d_ff)
        x = norm(f"{layer}.norm3", x + drop(linear(f"{layer}.linear2", hidden)))
    return linear("head", x)


@dataclass(frozen=True)
class JaxForm:
    """A model in JAX: a function (architecture, weights, tokens (B, T), drop) -> logits (B, T, V).

    ``xla_flags`` are those with which XLA compiles it fastest.
    """

    forward: Callable[..., Any]
    xla_flags: tuple[str, ...] = ()


FORMS: dict[type[Architecture], JaxForm] = {
    # Eigen does its small products faster than YNNPACK.
    MLPArchitecture: JaxForm(_mlp, ("--xla_cpu_experimental_ynn_fusion_type=",)),
    TransformerArchitecture: JaxForm(_transformer),
}
