"""The body of the two training scripts: train one model, show progress, print a summary."""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import sys
from dataclasses import asdict
from pathlib import Path

from training.bits import BITS_VERSION
from training.cli import (
    Parser,
    non_negative_int,
    positive_int,
    require_writable,
    write_atomically,
)
from training.errors import UserError
from training.flags import add_engine_flags, import_torch, resolve_device
from training.protocol import Protocol


def add_run_flags(parser: Parser, default_sequences: int) -> None:
    """Add the flags that both training scripts have besides architecture and protocol."""
    parser.add_argument(
        "--num-sequences",
        type=positive_int,
        metavar="N",
        default=default_sequences,
        help="mappings to memorize",
    )
    parser.add_argument(
        "--seed", type=non_negative_int, metavar="N", default=0, help="base seed of every stream"
    )
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
        type=Path,
        metavar="FILE.csv",
        help="write loss (nats per token), accuracy and learning rate of every epoch",
    )
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="write the weights (torch state_dict)"
    )


def train_and_report(
    args: argparse.Namespace, architecture, protocol: Protocol, budget: int, note: str | None
) -> None:
    """Train one model as the flags say and print its summary; ``note`` goes to stderr first."""
    from dataset.synthetic_generator import max_mappings

    limit = max_mappings(architecture.vocab_size, architecture.seq_len)
    if args.num_sequences > limit:
        raise UserError(
            f"--num-sequences {args.num_sequences} is beyond the {limit} mappings that "
            f"{architecture.vocab_size} tokens and length {architecture.seq_len} allow"
        )
    for path in (args.history, args.save):
        if path is not None:
            require_writable(path)
    import_torch()
    from training.engine import engine_used, variant_label

    device = resolve_device(args.device)
    used = engine_used(args.engine, device, architecture)
    if note:
        print(note, file=sys.stderr)
    configuration = {
        "model": architecture.model,
        "protocol": protocol.label(architecture.model) + variant_label(used, device),
        "bits": BITS_VERSION,
        "budget": budget,
        **architecture.columns(),
        "repeat": args.repeat,
        "seed": args.seed,
        "n": args.num_sequences,
        "device": device,
        "engine": used,
    }
    if args.dry_run:
        details = {**configuration, **asdict(protocol)}
        print(json.dumps(details) if args.json else _aligned(details))
        return
    outcome, weights, history = _train(args, architecture, protocol, device)
    if args.history:
        write_atomically(args.history, lambda file: file.write(_history_csv(history).encode()))
    if args.save:
        import torch

        weights = {name: value.cpu() for name, value in weights.items()}
        write_atomically(args.save, lambda file: torch.save(weights, file))
    bits = bits_per_parameter(args.num_sequences, architecture) if outcome.memorized else 0.0
    summary = {
        **configuration,
        **{k: v if not _is_nan(v) else None for k, v in asdict(outcome).items()},
        "bits_per_parameter": bits,
    }
    print(json.dumps(summary) if args.json else _summary(summary, architecture))


def bits_per_parameter(n: int, architecture) -> float:
    """Return n * T * log2(V) / parameters: the bits of n random label sequences per parameter."""
    bits = n * architecture.seq_len * math.log2(architecture.vocab_size)
    return bits / architecture.num_parameters


def _train(args: argparse.Namespace, architecture, protocol: Protocol, device: str):
    import torch
    from tqdm import tqdm

    from training.engine import fallback_note, train_probe
    from training.probe_types import Probe

    torch.set_num_threads(args.threads)
    if note := fallback_note(args.engine, device, [architecture]):
        print(note, file=sys.stderr)
    history = []
    probe = Probe(architecture, protocol, args.seed, args.repeat, args.num_sequences)
    with tqdm(total=protocol.max_epochs, unit="epoch", disable=None, leave=False) as bar:

        def on_epoch(record) -> None:
            history.append(record)
            bar.set_postfix(loss=f"{record.loss:.4f}", accuracy=f"{record.accuracy:.4f}")
            bar.update()

        outcome, weights = train_probe(probe, device, args.engine, on_epoch)
    return outcome, weights, history


def _history_csv(history: list) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["epoch", "loss", "accuracy", "learning_rate"])
    writer.writerows([r.epoch, r.loss, r.accuracy, r.learning_rate] for r in history)
    return text.getvalue()


def _is_nan(value: object) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def _aligned(rows: dict) -> str:
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())


def _summary(summary: dict, architecture) -> str:
    loss = summary["loss"]
    return _aligned(
        {
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
    )
