"""What the scripts that search share: their flags, what these ask for, and doing it."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence

from command_line.flags import (
    add_budget_flag,
    add_engine_flags,
    add_model_flags,
    add_probe_flags,
    add_protocol_flags,
    flag_values,
    protocol_from,
)
from command_line.parser import Parser, positive_int, user_path
from threshold_search.log.results_folder import DEFAULT_FOLDER
from threshold_search.models import MODELS, find_spec
from threshold_search.options import EXECUTORS, Options
from threshold_search.plan import configurations, published_configurations, shard
from threshold_search.questions.question import Configuration, Question
from threshold_search.run import Finished, run_searches
from training.errors import UserError
from training.spec import ModelSpec


def asked_for(
    description: str | None, repeats: int, add_own_flags: Callable[[Parser], None]
) -> tuple[argparse.Namespace, list[Configuration]]:
    """Return the flags of a script, and the configurations that they mean.

    ``description`` is its docstring, ``repeats`` how often it trains by default. Raises
    :class:`UserError` where the flags mean no configuration.
    """
    specs = _models_asked_for()
    parser = Parser(description)
    add_own_flags(parser)
    _add_search_flags(parser, specs, repeats)
    args = parser.parse_args()
    return args, _configurations_asked_for(args, specs)


def _models_asked_for() -> list[ModelSpec]:
    """Return what ``--model`` names: its own flags have to be known before the rest is read."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--model", nargs="?")
    name = parser.parse_known_args()[0].model
    return list(MODELS.values()) if name is None else [find_spec(name)]


def _configurations_asked_for(
    args: argparse.Namespace, specs: Sequence[ModelSpec]
) -> list[Configuration]:
    if not args.paper:
        if args.model is None:
            names = " or ".join(f"--model {name}" for name in MODELS)
            raise UserError(f"give {names}, or --paper")
        (spec,) = specs
        given = flag_values(args, spec)
        values = {name: v if isinstance(v, list) else [v] for name, v in given.items()}
        return configurations(spec, protocol_from(args, spec), args.params, values)
    given = {name: v for spec in specs for name, v in flag_values(args, spec).items()}
    narrowing = list(dict.fromkeys(name for spec in specs for name in spec.grid(None)))
    if args.params or not set(given) <= set(narrowing):
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in narrowing)
        raise UserError(f"--paper fixes the budgets and sizes; narrow it with {flags}")
    rows = [
        row
        for spec in specs
        for row in published_configurations(spec, protocol_from(args, spec), given)
    ]
    if not rows:
        raise UserError("no published row is of this model and these sizes")
    return rows


def run_as_asked(args: argparse.Namespace, questions: Sequence[Question]) -> Finished:
    """Bring ``questions``, or the shard that is asked for, to their ends as the flags say.

    Raises KeyboardInterrupt with what an interrupted user should know, and as
    :func:`~threshold_search.run.run_searches`.
    """
    if args.shard is not None:
        questions = shard(questions, *args.shard)
    names = [field.name for field in dataclasses.fields(Options)]
    try:
        finished = run_searches(questions, Options(**{name: getattr(args, name) for name in names}))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; every finished probe is in {args.results_dir}, "
            "the same command continues from there"
        ) from None
    if not finished.trained:
        print(
            f"note: the logs in {args.results_dir} had every probe; nothing was trained. To "
            "measure anew, give another folder (--results-dir) or another --seed",
            file=sys.stderr,
        )
    return finished


def _shard(text: str) -> tuple[int, int]:
    """Flag type of a part of the searches: "1/3" is the first of three."""
    index, _, count = text.partition("/")
    part, parts = positive_int(index), positive_int(count)
    if part > parts:
        raise argparse.ArgumentTypeError(f"must be I/N with I up to N, got {text!r}")
    return part, parts


def _add_search_flags(parser: Parser, specs: Sequence[ModelSpec], repeats: int) -> None:
    """Add the flags that say what is trained, how often (``repeats`` by default), and where."""
    parser.add_argument(
        "--model",
        metavar="MODEL",
        help=f"what to search: {', '.join(MODELS)}, or package.module:SPEC",
    )
    add_budget_flag(parser, specs)
    parser.add_argument(
        "--paper", action="store_true", help="all published rows (of --model, if given)"
    )
    add_model_flags(parser, specs, search=True)
    parser.add_argument(
        "--repeats", type=positive_int, metavar="N", default=repeats, help="independent repeats"
    )
    add_probe_flags(parser)
    parser.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="only the I-th of N parts of the searches, for as many machines; give each a "
        "--results-dir of its own, then merge_logs.py (default: all)",
    )
    parser.add_argument(
        "--workers",
        type=positive_int,
        metavar="N",
        help="processes, one thread each (default: one per usable CPU, one in all on a GPU)",
    )
    parser.add_argument(
        "--executor",
        choices=tuple(EXECUTORS),
        default=Options.executor,
        help="what starts the processes",
    )
    parser.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="of a Ray cluster (auto, HOST:PORT) that this machine is part of "
        "(default: one on this machine, for this search)",
    )
    parser.add_argument(
        "--deadline",
        type=positive_int,
        metavar="SECONDS",
        default=int(Options.deadline),
        help="a job that takes longer is taken for lost, and starts again twice",
    )
    parser.add_argument(
        "--results-dir",
        type=user_path,
        metavar="DIR",
        default=DEFAULT_FOLDER,
        help="folder of the logs and results",
    )
    add_engine_flags(parser)
    add_protocol_flags(parser, specs)
