"""Time of a stacked step: vmap over the module, a hand-written form, and the reference loop.

    python benchmarks/vmap_step.py
    python benchmarks/vmap_step.py --device cuda  # results/benchmarks/vmap_step_cuda.csv

The first two are the stacked engine (engines/stacked.py), batch 32, and differ in the forward pass
alone (engines/forward.py): batch selection, masks, loss, clipping and AdamW are the same code. A
model without a hand-written form has no numbers of it. Two times are taken, in microseconds per
step of one model: forward and backward, and an epoch of one whole step. The reference loop's step,
one model after the other, stands beside them. All take turns in every round, one thread; times and
ratios are medians over the rounds, a ratio's terms being of the same round. Before a configuration
is timed, logits and gradients are checked against the modules' own, one model at a time, to 1e-5.

On CUDA the whole steps are replays of a captured graph, forward and backward alone are not; the
device is waited for before every reading of the clock, and masks are hashed on the device. Prints
the table and writes results/benchmarks/vmap_step.csv.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from machine import report
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from command_line.flags import resolve_device
from command_line.parser import Parser, positive_int, run
from dataset.encoding import IGNORED
from engines.forward import Keep, VmapForward
from engines.stacked import StackedModels
from mlp_experiments.mlp_utils import MLPArchitecture
from training.errors import UserError
from training.module import draw_step_masks
from training.optimizers import parameter_groups
from training.probe import Probe
from training.spec import Architecture
from training.start import ProbeStart, start_probe
from transformer_experiments.decoder_only_utils import DecoderOnlyArchitecture
from transformer_experiments.transformer_utils import TransformerArchitecture

CONFIGURATIONS: list[tuple[Architecture, int]] = [
    (MLPArchitecture(49, 1), 5),
    (MLPArchitecture(49, 1), 16),
    (MLPArchitecture(33, 4), 5),
    (MLPArchitecture(149, 1), 5),
    (TransformerArchitecture(32, 380, 4, 1), 5),
    (TransformerArchitecture(32, 380, 4, 1), 16),
    (TransformerArchitecture(64, 768, 32, 1), 5),
    (DecoderOnlyArchitecture(32, 380, 4, 1), 5),
    (DecoderOnlyArchitecture(32, 380, 4, 1), 16),
    (DecoderOnlyArchitecture(64, 256, 4, 1), 5),
]
TIMES = ("hand_gradient", "hand_step", "vmap_gradient", "vmap_step", "reference_step")
SEQUENCES = 512
TOLERANCE = 1e-5
SECONDS = 0.1  # that one measurement lasts at least


def stack_of(
    starts: Sequence[ProbeStart], form: str, device: str = "cpu", host_masks: bool = True
) -> StackedModels:
    """Return the models of ``starts`` stacked, with the forward pass ``form``: hand or vmap."""
    stack = StackedModels(starts, device, host_masks)
    if form == "vmap":
        stack._forward = VmapForward(starts[0].module, stack.device)
    return stack


def forms_of(architecture: Architecture) -> list[str]:
    """Return the forms that the architecture's model has."""
    return ["hand", "vmap"] if architecture.spec.stacked else ["vmap"]


def module_by_module(
    starts: Sequence[ProbeStart], rows: Tensor, valid: Tensor, keep: Keep
) -> tuple[Tensor, Tensor]:
    """Return the modules' own logits (M, B, S, V) and gradients (M, P), one model at a time.

    ``rows`` (M, B) of int64 and ``valid`` (M, B) of bool choose the batches, ``keep`` the masks.
    Logits of rows that are not valid are zeros.
    """
    all_logits, gradients = [], []
    for i, start in enumerate(starts):
        module: Any = copy.deepcopy(start.module).to(rows.device).train(keep is not None)
        sites = module.dropout_sites() if keep else []
        for (layer, per_row), mask in zip(sites, keep or [], strict=True):
            layer.step_mask = mask[i].view(-1, per_row)[valid[i]]
        inputs, targets = start.tensors(str(rows.device))
        chosen = rows[i, valid[i]]
        logits = module(inputs[chosen])  # (valid rows, S, V)
        loss = F.cross_entropy(
            logits.flatten(0, 1), targets[chosen].flatten(), ignore_index=IGNORED
        )
        parts = torch.autograd.grad(loss, list(module.parameters()))
        gradients.append(torch.cat([part.flatten() for part in parts]))
        padded = logits.new_zeros(rows.shape[1], *logits.shape[1:])
        padded[valid[i]] = logits.detach()
        all_logits.append(padded)
    return torch.stack(all_logits), torch.stack(gradients)


def random_batch(
    stack: StackedModels, starts: Sequence[ProbeStart], sizes: Sequence[int]
) -> tuple[Tensor, Tensor, Keep]:
    """Return rows (M, B), which of them are valid (M, B), and masks for one step of ``stack``.

    ``stack`` was made of ``starts``. Model i has ``sizes[i]`` valid rows, its first ones.
    """
    generator = torch.Generator().manual_seed(0)
    shape = (len(sizes), stack.batch)
    rows = torch.randint(min(len(s.inputs) for s in starts), shape, generator=generator)
    valid = torch.arange(stack.batch) < torch.tensor(sizes).unsqueeze(1)
    keep: Keep = []
    if stack._masks is not None:
        masks = stack._masks.draw([True] * len(sizes), stack._steps_done)
        keep = masks.split([stack.batch * per_row for per_row in stack._sites], dim=1)
    return rows.to(stack.device), valid.to(stack.device), keep


def largest_difference(
    stack: StackedModels, starts: Sequence[ProbeStart], sizes: Sequence[int]
) -> float:
    """Return the largest difference of logits and gradients from the modules' own.

    ``stack`` has not been trained yet; the arguments are those of :func:`random_batch`.
    """
    rows, valid, keep = batch = random_batch(stack, starts, sizes)
    logits, gradients = module_by_module(starts, *batch)
    with torch.no_grad():
        inputs = stack._inputs[stack._index, rows]
        ours = stack._forward(stack._parameters(stack._flat), inputs, keep)
    ours = ours * valid[..., None, None]
    padded = stack._gradient(*batch)
    differences = (ours - logits, padded[:, : gradients.shape[1]] - gradients)
    return max(float(difference.abs().max()) for difference in differences)


def gradient_of(stack: StackedModels, starts: Sequence[ProbeStart]) -> Callable[[], object]:
    """Return a function that goes forward and backward once, on the same batch every time."""
    batch = random_batch(stack, starts, [stack.batch] * len(starts))
    return lambda: stack._gradient(*batch)


def step_of(stack: StackedModels, starts: Sequence[ProbeStart]) -> Callable[[], object]:
    """Return a function that takes one step of ``stack`` in an epoch of one batch."""
    epochs = []
    for start in starts:
        order, rates = next(start.epochs())
        epochs.append((order[: stack.batch], rates[:1]))
    return lambda: stack.train_epoch(epochs)


def reference_step_of(starts: Sequence[ProbeStart], device: str) -> Callable[[], object]:
    """Return a function that takes one step of every model in turn, as training/loop.py does."""
    protocol = starts[0].probe.protocol

    def prepare(start: ProbeStart) -> Callable[[], None]:
        module: Any = copy.deepcopy(start.module).to(device).train()
        inputs, targets = start.tensors(device)
        rows = torch.arange(protocol.batch_size, device=device)
        optimizer = torch.optim.AdamW(
            parameter_groups(module, protocol.weight_decay), lr=protocol.learning_rate
        )

        def step() -> None:
            if protocol.dropout > 0:
                sites = module.dropout_sites()
                draw_step_masks(sites, start.masks, protocol.batch_size, inputs.device)
            logits = module(inputs[rows])
            loss = F.cross_entropy(logits.flatten(0, 1), targets[rows].flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), protocol.grad_clip)
            optimizer.step()

        return step

    steps = [prepare(start) for start in starts]
    return lambda: [step() for step in steps]


def seconds_of(work: Callable[[], object], calls: int, device: str) -> float:
    """Return the seconds that one of ``calls`` calls takes, to the end of the device's work."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(calls):
        work()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / calls


def measure(architecture: Architecture, models: int, rounds: int, device: str) -> dict:
    """Check and time one configuration; return its row."""
    protocol = architecture.spec.protocol()
    probes = [Probe(architecture, protocol, 0, repeat, SEQUENCES) for repeat in range(models)]
    starts = [start_probe(probe) for probe in probes]
    works: dict[str, Callable[[], object]] = {}
    difference = 0.0
    for name in forms_of(architecture):
        stack = stack_of(starts, name, device, host_masks=device == "cpu")
        for sizes in ([stack.batch] * models, [1 + i % stack.batch for i in range(models)]):
            difference = max(difference, largest_difference(stack, starts, sizes))
        works[f"{name}_gradient"] = gradient_of(stack, starts)
        works[f"{name}_step"] = step_of(stack, starts)
    if not difference <= TOLERANCE:
        raise UserError(f"{architecture.name}: differs from its module by {difference:.1e}")
    works["reference_step"] = reference_step_of(starts, device)
    calls = {}
    for name, work in works.items():
        seconds_of(work, 2, device)  # warm; the first step on CUDA captures the graph
        calls[name] = 1 + int(SECONDS / seconds_of(work, 1, device))
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(seconds_of(work, calls[name], device))

    def ratio(a: str, b: str) -> float:
        if not {a, b} <= times.keys():
            return math.nan
        return statistics.median(x / y for x, y in zip(times[a], times[b], strict=True))

    def microseconds(name: str) -> float:
        return 1e6 * statistics.median(times[name]) / models if name in times else math.nan

    return {
        "model": architecture.spec.name,
        "configuration": architecture.name,
        "dropout": protocol.dropout,
        "models": models,
        "difference": difference,
        **{f"{name}_us": microseconds(name) for name in TIMES},
        "gradient_ratio": ratio("vmap_gradient", "hand_gradient"),
        "step_ratio": ratio("vmap_step", "hand_step"),
        "reference_over_vmap": ratio("reference_step", "vmap_step"),
        "rounds": rounds,
        "device": torch.cuda.get_device_name() if device == "cuda" else device,
    }


def main() -> None:
    """Check, measure, print and write the table."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="cpu", help="where to train"
    )
    parser.add_argument(
        "--rounds", type=positive_int, metavar="N", default=15, help="times everything is measured"
    )
    args = parser.parse_args()
    device = resolve_device(args.device)
    torch.set_num_threads(1)
    rows = [
        measure(architecture, models, args.rounds, device)
        for architecture, models in tqdm(CONFIGURATIONS, disable=None)
    ]
    report(rows, "vmap_step" if device == "cpu" else "vmap_step_cuda")


if __name__ == "__main__":
    run(main)
