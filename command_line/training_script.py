"""The body of the training scripts: train one model, show progress, print a summary."""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from operator import methodcaller
from pathlib import Path
from typing import TYPE_CHECKING, Any

from command_line.files import require_writable, write_whole
from command_line.flags import (
    add_budget_flag,
    add_engine_flags,
    add_model_flags,
    add_probe_flags,
    add_protocol_flags,
    flag_values,
    protocol_from,
    resolve_device,
)
from command_line.interrupts import import_torch
from command_line.parser import Parser, non_negative_int, positive_int, user_path
from engines.choice import choose_engine, fallback_note
from engines.engine import Engine
from training.errors import UserError
from training.probe import BITS_VERSION, Outcome, Probe
from training.schedule import last_epoch
from training.spec import Architecture, ModelSpec, Report

if TYPE_CHECKING:
    from torch import Tensor

    from training.loop import EpochRecord

HISTORY_COLUMNS = ("epoch", "loss", "accuracy", "learning_rate")


def train_script(specs: ModelSpec | Mapping[str, ModelSpec], description: str | None) -> None:
    """Read the flags of a training script, train, report.

    Of several models ``--architecture`` chooses one by its name; the first is the default.
    """
    by_name = {specs.name: specs} if isinstance(specs, ModelSpec) else specs
    spec = by_name[_asked_for(by_name)]
    args = _parse(spec, list(by_name), description)
    probe = _probe(args, spec)
    for file in filter(None, (args.history, args.save)):
        require_writable(file)
    device = resolve_device(args.device)
    engine = choose_engine(args.engine, device, *probe.kind)
    budget = args.params or probe.architecture.num_parameters
    if note := spec.label_note(budget, probe.architecture):
        print(note, file=sys.stderr)
    configuration = _configuration(probe, budget, engine)
    if args.dry_run:
        details = {**configuration, **asdict(probe.protocol)}
        print(json.dumps(details) if args.json else _aligned(details))
        return
    import_torch()
    if note := fallback_note(args.engine, device, {probe.kind: engine}):
        print(note, file=sys.stderr)
    outcome, history, weights = _train(probe, engine, args.threads)
    contents: dict[Path, bytes] = {}
    if args.save:
        contents[args.save] = _weights_file(weights())
    if args.history:
        contents[args.history] = _history_csv(history)
    not_written = []
    for path, content in contents.items():
        try:
            write_whole(path, methodcaller("write", content))
        except UserError as error:  # the rest of what was trained is not lost with it
            not_written.append(str(error))
    report = _report(probe, weights())
    bits = probe.n * probe.protocol.make_task().bits_per_label if outcome.memorized else 0.0
    measured = {
        **asdict(outcome),
        "bits_per_parameter": bits / probe.architecture.num_parameters,
        **report,
    }
    finite = {k: None if _is_not_finite(v) else v for k, v in measured.items()}
    summary = {**configuration, **finite}
    lines = {**_summary(summary, probe.architecture), **_shown(report)}
    print(json.dumps(summary) if args.json else _aligned(lines))
    if not_written:
        raise UserError("; ".join(not_written))


def _asked_for(names: Mapping[str, ModelSpec]) -> str:
    """Return the model of ``--architecture``, whose flags have to be known to read the rest."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--architecture", nargs="?")
    name = parser.parse_known_args()[0].architecture
    return name if name in names else next(iter(names))


def _parse(spec: ModelSpec, names: Sequence[str], description: str | None) -> argparse.Namespace:
    parser = Parser(description)
    if len(names) > 1:
        parser.add_argument(
            "--architecture",
            choices=names,
            default=names[0],
            help="the model; with --help, shows the flags of this one",
        )
    add_budget_flag(parser, [spec])
    add_model_flags(parser, [spec])
    parser.add_argument(
        "--num-sequences",
        type=positive_int,
        metavar="N",
        default=spec.default_sequences,
        help="examples to memorize",
    )
    add_probe_flags(parser)
    parser.add_argument(
        "--repeat",
        type=non_negative_int,
        metavar="N",
        default=0,
        help="repeat index of the threshold search whose probe to train again",
    )
    add_engine_flags(parser)
    parser.add_argument(
        "--threads", type=positive_int, metavar="N", default=1, help="CPU threads of torch"
    )
    parser.add_argument(
        "--json", action="store_true", help="print the summary as one JSON object on stdout"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the resolved configuration and stop"
    )
    parser.add_argument(
        "--history",
        type=user_path,
        metavar="FILE.csv",
        help="write loss (nats per token), accuracy and learning rate of every evaluated epoch; "
        "visualizations/figures.py history FILE.csv draws it",
    )
    parser.add_argument(
        "--save", type=user_path, metavar="FILE", help="write the weights (torch state_dict)"
    )
    add_protocol_flags(parser, [spec])
    return parser.parse_args()


def _probe(args: argparse.Namespace, spec: ModelSpec) -> Probe:
    protocol = protocol_from(args, spec)
    task, n = protocol.make_task(), args.num_sequences
    architecture = spec.solve_for(task, args.params, **flag_values(args, spec))
    if n > task.largest:
        raise UserError(
            f"--num-sequences {n} is beyond the {task.largest} examples that "
            f"{task.vocab_size} tokens and length {task.seq_len} allow"
        )
    return Probe(architecture, protocol, args.seed, args.repeat, n, args.attempt)


def _configuration(probe: Probe, budget: int, engine: Engine) -> dict[str, Any]:
    return {
        "model": probe.architecture.spec.name,
        "protocol": probe.label + engine.label,
        "bits": BITS_VERSION,
        "budget": budget,
        **probe.architecture.columns(),
        "repeat": probe.repeat,
        "seed": probe.seed,
        "n": probe.n,
        "device": engine.device,
        "engine": engine.name,
    }


def _train(
    probe: Probe, engine: Engine, threads: int
) -> tuple[Outcome, Sequence[EpochRecord], Callable[[], Mapping[str, Tensor]]]:
    """Train, with a bar; return the outcome, every evaluation, and what returns the weights."""
    import torch
    from tqdm import tqdm

    torch.set_num_threads(threads)
    history: list[EpochRecord] = []
    epochs = last_epoch(probe.protocol, probe.n)
    with tqdm(total=epochs, unit="epoch", disable=None, leave=False) as bar:

        def on_epoch(record: EpochRecord) -> None:
            history.append(record)
            bar.set_postfix(loss=f"{record.loss:.4f}", accuracy=f"{record.accuracy:.4f}")
            bar.update(record.epoch - bar.n)

        [(outcome, weights)] = engine.train([probe], on_epoch)
    return outcome, history, weights


def _weights_file(weights: Mapping[str, Tensor]) -> bytes:
    """Return what torch.load reads; if it wrote to a full disk itself, torch would not say so."""
    import torch

    content = io.BytesIO()
    torch.save({name: value.cpu() for name, value in weights.items()}, content)
    return content.getvalue()


def _report(probe: Probe, weights: Mapping[str, Tensor]) -> Report:
    """Return what the model's own report says of it with its trained weights."""
    import torch

    from training.start import probe_mappings

    spec = probe.architecture.spec
    if spec.report is None:
        return {}
    module = spec.build(probe.architecture, 0.0).to(getattr(torch, probe.protocol.dtype))
    module.load_state_dict(dict(weights))
    return spec.report(module, probe_mappings(probe))


def _history_csv(history: Sequence[EpochRecord]) -> bytes:
    rows = [HISTORY_COLUMNS, *((r.epoch, r.loss, r.accuracy, r.learning_rate) for r in history)]
    return "".join(",".join(map(str, row)) + "\n" for row in rows).encode()


def _is_not_finite(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _aligned(rows: dict[str, Any]) -> str:
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def _shown(report: Report) -> dict[str, str]:
    """Return the lines of a model's own report."""
    numbers = {k: v if isinstance(v, list) else [v] for k, v in report.items()}
    return {
        name.replace("_", " "): " ".join(f"{value:.4g}" for value in values)
        for name, values in numbers.items()
    }


def _summary(summary: dict[str, Any], architecture: Architecture) -> dict[str, Any]:
    loss = summary["loss"]
    return {
        "architecture": f"{summary['model']} {architecture.name}",
        "protocol": summary["protocol"],
        "true parameters": f"{summary['num_parameters']:,}",
        "sequences N": summary["n"],
        "memorized": "yes" if summary["memorized"] else "no",
        "accuracy": f"{summary['accuracy']:.6f} of tokens",
        "loss": "not finite" if loss is None else f"{loss:.6f} nats per token",
        "epochs": summary["epochs"],
        "stop reason": summary["stop_reason"],
        "bits stored": f"{summary['bits_per_parameter']:.4f} per parameter"
        + ("" if summary["memorized"] else " (not memorized: counted as none)"),
        "device": f"{summary['device']}, {summary['engine']} engine",
        "seconds": f"{summary['seconds']:.2f}",
    }
