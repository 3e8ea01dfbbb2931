"""The body of the training scripts: train one model, show progress, print a summary."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

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


@dataclass(frozen=True)
class Job:
    """What one run of a training script is to do."""

    probe: Probe
    budget: int
    requested_engine: str
    device: str
    threads: int
    as_json: bool
    dry_run: bool
    history: Path | None
    save: Path | None


def train_script(specs: ModelSpec | Mapping[str, ModelSpec], description: str | None) -> None:
    """Read the flags of a training script, train, report.

    Of several models ``--architecture`` chooses one by its name; the first is the default.
    """
    by_name = {specs.name: specs} if isinstance(specs, ModelSpec) else specs
    spec = by_name[_asked_for(by_name)]
    job = _job(_parse(spec, list(by_name), description), spec)
    probe = job.probe
    _require_size(probe)
    for file in (job.history, job.save):
        if file is not None:
            require_writable(file)
    device = resolve_device(job.device)
    engine = choose_engine(job.requested_engine, device, *probe.kind)
    if note := spec.label_note(job.budget, probe.architecture):
        print(note, file=sys.stderr)
    configuration = _configuration(job, engine)
    if job.dry_run:
        details = {**configuration, **asdict(probe.protocol)}
        print(json.dumps(details) if job.as_json else _aligned(details))
        return
    import_torch()
    if note := fallback_note(job.requested_engine, device, {probe.kind: engine}):
        print(note, file=sys.stderr)
    outcome, history, weights = _train(job, engine)
    files: list[tuple[Path, Callable[[BinaryIO], object]]] = []
    if job.save:
        content = _weights_file(weights())
        files.append((job.save, lambda file: file.write(content)))
    if job.history:
        files.append((job.history, lambda file: file.write(_history_csv(history).encode())))
    not_written = []
    for path, writer in files:
        try:
            write_whole(path, writer)
        except UserError as error:  # the rest of what was trained is not lost with it
            not_written.append(str(error))
    report = _report(probe, weights())
    memorized_bits = bits_per_parameter(probe) if outcome.memorized else 0.0
    summary = {
        **configuration,
        **{k: None if _is_not_finite(v) else v for k, v in asdict(outcome).items()},
        "bits_per_parameter": memorized_bits,
        **{k: None if _is_not_finite(v) else v for k, v in report.items()},
    }
    lines = {**_summary(summary, probe.architecture), **_shown(report)}
    print(json.dumps(summary) if job.as_json else _aligned(lines))
    if not_written:
        raise UserError("; ".join(not_written))


def bits_per_parameter(probe: Probe) -> float:
    """Return the bits of n random labels per parameter: n * T * log2(V) / parameters."""
    task = probe.protocol.make_task()
    return probe.n * task.bits_per_label / probe.architecture.num_parameters


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


def _job(args: argparse.Namespace, spec: ModelSpec) -> Job:
    protocol = protocol_from(args, spec)
    architecture = spec.solve_for(protocol.make_task(), args.params, **flag_values(args, spec))
    return Job(
        Probe(architecture, protocol, args.seed, args.repeat, args.num_sequences, args.attempt),
        args.params or architecture.num_parameters,
        args.engine,
        args.device,
        args.threads,
        args.json,
        args.dry_run,
        args.history,
        args.save,
    )


def _require_size(probe: Probe) -> None:
    task = probe.protocol.make_task()
    if probe.n > task.largest:
        raise UserError(
            f"--num-sequences {probe.n} is beyond the {task.largest} examples that "
            f"{task.vocab_size} tokens and length {task.seq_len} allow"
        )


def _configuration(job: Job, engine: Engine) -> dict[str, Any]:
    probe = job.probe
    spec = probe.architecture.spec
    return {
        "model": spec.name,
        "protocol": probe.label + engine.label,
        "bits": BITS_VERSION,
        "budget": job.budget,
        **probe.architecture.columns(),
        "repeat": probe.repeat,
        "seed": probe.seed,
        "n": probe.n,
        "device": engine.device,
        "engine": engine.name,
    }


def _train(
    job: Job, engine: Engine
) -> tuple[Outcome, Sequence[EpochRecord], Callable[[], Mapping[str, Tensor]]]:
    """Train, with a bar; return the outcome, every evaluation, and what returns the weights."""
    import torch
    from tqdm import tqdm

    torch.set_num_threads(job.threads)
    history: list[EpochRecord] = []
    epochs = last_epoch(job.probe.protocol, job.probe.n)
    with tqdm(total=epochs, unit="epoch", disable=None, leave=False) as bar:

        def on_epoch(record: EpochRecord) -> None:
            history.append(record)
            bar.set_postfix(loss=f"{record.loss:.4f}", accuracy=f"{record.accuracy:.4f}")
            bar.update(record.epoch - bar.n)

        [(outcome, weights)] = engine.train([job.probe], on_epoch)
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


def _history_csv(history: Sequence[EpochRecord]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HISTORY_COLUMNS)
    writer.writerows([r.epoch, r.loss, r.accuracy, r.learning_rate] for r in history)
    return text.getvalue()


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
