"""Find the memorization threshold of every configuration of a parameter budget.

    python threshold_search/binary_search.py --model mlp --params 30000
    python threshold_search/binary_search.py --model transformer --params 32000 --layers 1
    python threshold_search/binary_search.py --paper        (all 69 published rows)

Writes MODEL_probes.csv (one row per trained model, as it finishes), MODEL_results.csv (one row per
search) and runs.jsonl (what trained them) into the results folder. The same command continues where
an earlier one was stopped.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from threshold_search.driver import SearchState, drive
from threshold_search.grid import label_notes, searches_from
from threshold_search.records import MODELS
from threshold_search.results_folder import DEFAULT_FOLDER, ResultsFolder
from threshold_search.run_record import append_run, describe_run
from threshold_search.workers import Workers
from training.cli import Parser, non_negative_int, positive_int, run
from training.errors import UserError
from training.flags import (
    add_engine_flags,
    add_protocol_flags,
    import_torch,
    resolve_device,
)
from training.probe_types import Architecture

BAR = (
    "{percentage:3.0f}%|{bar}| {n:.1f}/{total} searches "
    "[{elapsed}<{remaining}, {rate_fmt}{postfix}]"
)


def main() -> None:
    """Read the flags, search, print the table."""
    args = _parse()
    if not args.paper and args.model is None:
        raise UserError("give --model mlp or --model transformer, or --paper")
    if args.paper and (args.params or args.hidden_size or args.d_ff or args.exact_params):
        raise UserError("--paper fixes the budgets and sizes; narrow it with --layers and --heads")
    if not args.paper and args.params is None:
        fixed = args.hidden_size and (args.model == "mlp" or args.d_ff)
        if not fixed:
            sizes = "--hidden-size" if args.model == "mlp" else "--hidden-size and --d-ff"
            raise UserError(f"give --params, or {sizes}")
    try:
        states, folder = _search(args)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; every finished probe is in {args.results_dir}, "
            "the same command continues from there"
        ) from None
    from threshold_search.report import summary_table

    print(summary_table(states, folder))


def _search(args: argparse.Namespace) -> tuple[list[SearchState], ResultsFolder]:
    searches = searches_from(args)
    import_torch()  # not before: neither --help nor the start of a worker should wait for it
    from training.engine import engine_used, fallback_note, stack_size, variant_label
    from training.native.load import engine_compiler

    device = resolve_device(args.device)
    # Decided once, so that the workers need not.
    engines = {s.architecture: engine_used(args.engine, device, s.architecture) for s in searches}
    worker_count = args.workers or _default_workers(device)

    def variant(architecture: Architecture) -> str:
        return variant_label(engines[architecture], device)

    def job_size(architecture: Architecture) -> int:
        return stack_size(engines[architecture], device)

    def before_training() -> None:
        if note := fallback_note(args.engine, device, engines):
            print(note, file=sys.stderr)
        used = {model: _engine_names(model, engines) for model in models}
        native = {"compiler": engine_compiler()} if "native" in engines.values() else {}
        append_run(args.results_dir, describe_run(used, device, worker_count, native))

    models = list(dict.fromkeys(architecture.model for architecture in engines))
    with ResultsFolder(args.results_dir, models, variant) as folder:
        for note in label_notes(searches):
            print(note, file=sys.stderr)
        with (
            Workers(worker_count, device, engines) as workers,
            _Progress(len(searches)) as progress,
        ):
            arguments = folder, workers, progress.show, job_size, before_training
            return drive(searches, *arguments), folder


def _engine_names(model: str, engines: dict[Architecture, str]) -> str:
    return ", ".join(sorted({e for a, e in engines.items() if a.model == model}))


def _default_workers(device: str) -> int:
    if device != "cpu":
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def _parse() -> argparse.Namespace:
    parser = Parser(__doc__)
    parser.add_argument("--model", choices=MODELS, help="which architecture to search")
    parser.add_argument(
        "--params",
        type=positive_int,
        metavar="P",
        help="parameter budget; transformers: 32000, 64000, 128000 are the published labels",
    )
    parser.add_argument(
        "--paper", action="store_true", help="all 69 published rows (of --model, if given)"
    )
    parser.add_argument(
        "--layers",
        type=non_negative_int,
        metavar="L",
        nargs="+",
        help="depths to search (default: the published ones, mlp 0 to 5, transformer 1 to 3)",
    )
    parser.add_argument(
        "--heads",
        type=positive_int,
        metavar="H",
        nargs="+",
        help="attention heads to search (default: the published ones of the budget, else 1 2 4 8)",
    )
    parser.add_argument(
        "--hidden-size", type=positive_int, metavar="D", nargs="+", help="widths (d_model) to fix"
    )
    parser.add_argument(
        "--d-ff", type=positive_int, metavar="F", nargs="+", help="feed-forward widths to fix"
    )
    parser.add_argument(
        "--exact-params",
        action="store_true",
        help="solve the published transformer labels for their true count too (default: off)",
    )
    parser.add_argument(
        "--repeats", type=positive_int, metavar="N", default=5, help="independent repeats"
    )
    parser.add_argument(
        "--seed", type=non_negative_int, metavar="N", default=0, help="base seed of all repeats"
    )
    parser.add_argument(
        "--max-size",
        type=positive_int,
        metavar="N",
        help="largest number of sequences to try (default: as many as the task has)",
    )
    parser.add_argument(
        "--workers",
        type=positive_int,
        metavar="N",
        help="processes, one thread each (default: one per core, one in all on a GPU)",
    )
    parser.add_argument(
        "--results-dir",
        type=Path,
        metavar="DIR",
        default=DEFAULT_FOLDER,
        help="folder of the logs and results",
    )
    add_engine_flags(parser)
    add_protocol_flags(parser, MODELS)
    return parser.parse_args()


class _Progress:
    """A bar over the searches, each counted by the share of its probes that is done."""

    def __init__(self, total: int) -> None:
        from tqdm import tqdm

        self._bar = tqdm(total=total, unit=" search", bar_format=BAR, disable=None)
        self._started = False

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, states: list[SearchState]) -> None:
        """Move the bar to where ``states`` are and name the probes being waited for."""
        if self._bar.disable:
            return
        done = sum(state.fraction for state in states)
        if not self._started:  # what the log had already says nothing about the rate
            self._bar.initial = self._bar.n = done
            self._started = True
        waiting = [s.probe for s in states if s.bounds is None]
        names = [f"{p.architecture.name} #{p.repeat} N={p.n}" for p in waiting[:2]]
        self._bar.set_postfix_str(", ".join(names), refresh=False)
        self._bar.update(done - self._bar.n)


if __name__ == "__main__":
    run(main)
