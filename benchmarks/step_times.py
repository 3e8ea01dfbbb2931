"""Time of one optimiser step: reference loop, fast engine, JAX, and the arithmetic's floor.

    python benchmarks/step_times.py
    python benchmarks/step_times.py --rounds 9  # steadier on a noisy machine
    python benchmarks/step_times.py --model decoder-only  # other rows of the file stay

Per model and step, one thread, batch 32, everything included (batch selection, masks, forward,
backward, clipping, AdamW). Five MLPs train in turn, one transformer alone. The engines take turns
in every round and the fastest round of each counts, by the CPU time of the process: what else runs
on a shared machine matters little then. The floor is 6 * batch * parameters FLOP for an MLP, times
T for a transformer, at this machine's measured sgemm rate. For the decoder-only model it counts
what the answers need, weight by weight: keys and values of every position, in the last layer the
rest and the head at T positions alone; a token looked up costs nothing. Where JAX is installed
(`pip install -e '.[bench]'`), it trains one model of four configurations in a process pinned to one
CPU, in turn with the others, by the wall clock, its compilation apart (jax_step.py). Prints the
table and writes results/benchmarks/step_times.csv, or step_times_avx512.csv where the processor has
AVX-512.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from typing import Any

import jax_step
import torch
from machine import has_wide_registers, report, sgemm_rate, start_native

from command_line.parser import Parser, positive_int, run
from engines.choice import choose_engine, fallback_note
from engines.stacked import StackedModels
from mlp_experiments.mlp_utils import MLPArchitecture
from training.loop import train
from training.probe import Probe
from training.spec import Architecture
from training.start import start_probe
from transformer_experiments.decoder_only_utils import DecoderOnlyArchitecture
from transformer_experiments.transformer_utils import TransformerArchitecture

CONFIGURATIONS: list[tuple[Architecture, int]] = [
    (MLPArchitecture(49, 1), 5),
    (MLPArchitecture(33, 4), 5),
    (MLPArchitecture(149, 1), 5),
    (MLPArchitecture(447, 1), 5),
    (TransformerArchitecture(32, 380, 4, 1), 1),
    (TransformerArchitecture(64, 768, 32, 1), 1),
    (TransformerArchitecture(128, 1550, 64, 1), 1),
    (TransformerArchitecture(128, 175, 1, 3), 1),
    (DecoderOnlyArchitecture(64, 256, 4, 1), 1),
    (DecoderOnlyArchitecture(64, 256, 4, 3), 1),
]
MODELS = tuple(dict.fromkeys(architecture.spec.name for architecture, _ in CONFIGURATIONS))
JAX_CONFIGURATIONS = [CONFIGURATIONS[i][0] for i in (0, 3, 4, 5)]


def decoder_only_products(a: DecoderOnlyArchitecture) -> int:
    """Return the products with a weight that one sequence's answers need in a forward pass."""
    d, positions = a.hidden_size, 2 * a.seq_len - 1
    keys_and_values, rest = 2 * d * d, 2 * d * d + 2 * d * a.d_ff
    last = positions * keys_and_values + a.seq_len * (rest + d * a.vocab_size)
    return (a.num_layers - 1) * positions * (keys_and_values + rest) + last


# Products with a parameter that one sequence needs in a forward pass.
PRODUCTS: dict[type[Architecture], Callable[[Any], int]] = {
    MLPArchitecture: lambda a: a.num_parameters,
    TransformerArchitecture: lambda a: a.seq_len * a.num_parameters,
    DecoderOnlyArchitecture: decoder_only_products,
}
SEQUENCES = 512
WARM_EPOCHS = 3  # of the reference loop; the first one also allocates the optimiser's state
STEPS = math.ceil(SEQUENCES / 32)  # of one epoch


def probes_of(architecture: Architecture, models: int, epochs: int) -> list[Probe]:
    """Return probes that train for ``epochs`` epochs unless everything is right before."""
    protocol = architecture.spec.protocol(max_epochs=epochs, patience=0)
    return [Probe(architecture, protocol, 0, repeat, SEQUENCES) for repeat in range(models)]


def reference(probe: Probe) -> Callable[[], float]:
    """Return a function that trains with the reference loop: seconds per step, best epoch."""
    begin = start_probe(probe)

    def epoch() -> float:
        module = copy.deepcopy(begin.module)  # one that has memorized its data would stop at once
        seconds, start = [], 0.0

        def evaluation_starts(module: torch.nn.Module, _) -> None:
            if not module.training and len(seconds) < WARM_EPOCHS:
                seconds.append(time.process_time() - start)

        def epoch_ends(_) -> None:
            nonlocal start
            start = time.process_time()

        hook = module.register_forward_pre_hook(evaluation_starts)
        epoch_ends(None)
        pieces = probe.protocol, begin.orders, begin.masks
        train(module, *begin.tensors(), *pieces, epoch_ends)
        hook.remove()
        return min(seconds) / STEPS

    return epoch


def native(probes: list[Probe]) -> Callable[[], float]:
    """Return a function that trains one epoch of every probe in turn: seconds per step."""
    models = [start_native(probe) for probe in probes]

    def epoch() -> float:
        start = time.process_time()
        for model, epochs in models:
            model.train_epoch(*next(epochs))
        return (time.process_time() - start) / STEPS / len(models)

    return epoch


def stacked(probes: list[Probe]) -> Callable[[], float]:
    """Return a function that trains one epoch of all probes stacked: seconds per step."""
    starts = [start_probe(probe) for probe in probes]
    stack = StackedModels(starts)
    epochs = [start.epochs() for start in starts]

    def epoch() -> float:
        start = time.process_time()
        stack.train_epoch([next(each) for each in epochs])
        return (time.process_time() - start) / STEPS / len(probes)

    return epoch


def main() -> None:
    """Measure, print and write the table."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--rounds", type=positive_int, metavar="N", default=5, help="times every engine is measured"
    )
    parser.add_argument("--model", choices=MODELS, help="measure the rows of this one alone")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for architecture, models in CONFIGURATIONS:
        if args.model not in (None, architecture.spec.name):
            continue
        probes = probes_of(architecture, models, 500)
        engines = {"reference": reference(probes_of(architecture, 1, WARM_EPOCHS)[0])}
        engines["torch_fallback"] = stacked(probes)
        kind = architecture, architecture.spec.protocol()
        if note := fallback_note("fast", "cpu", {kind: choose_engine("fast", "cpu", *kind)}):
            print(note)
        else:
            engines["fast"] = native(probes)
        jax_compile_seconds = math.nan
        if architecture in JAX_CONFIGURATIONS and jax_step.installed():
            engines["jax"], jax_compile_seconds = jax_step.jax_epoch(probes[0])
        best = dict.fromkeys(engines, math.inf)
        rate = 0.0
        for _ in range(args.rounds):
            for name, epoch in engines.items():
                best[name] = min(best[name], epoch())
            rate = max(rate, sgemm_rate(trials=1))
        floor = 6 * 32 * PRODUCTS[type(architecture)](architecture) / rate
        fast = best.get("fast", best["torch_fallback"])
        rows.append(
            {
                "model": architecture.spec.name,
                "configuration": architecture.name,
                "models": models,
                **{f"{name}_us": 1e6 * seconds for name, seconds in best.items()},
                "jax_us": 1e6 * best.get("jax", math.nan),
                "jax_compile_seconds": jax_compile_seconds,
                "floor_us": 1e6 * floor,
                "speedup": best["reference"] / fast,
                "share_of_floor": floor / fast,
                "sgemm_gflops": rate / 1e9,
            }
        )
    # With wider registers both the engine and the floor are others: a file of its own.
    name = "step_times_avx512" if has_wide_registers() else "step_times"
    report(rows, name, keys=("model",) if args.model else ())


if __name__ == "__main__":
    run(main)
