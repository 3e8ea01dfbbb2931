"""From the flags of the search script to the list of searches."""

from __future__ import annotations

import argparse

from dataset.synthetic_generator import max_mappings
from mlp_experiments import mlp_utils
from mlp_experiments.mlp_utils import MLPArchitecture
from threshold_search.driver import Search
from training.errors import UserError
from training.flags import protocol_from
from training.protocol import Protocol
from transformer_experiments import budgets as transformer_budgets

DEFAULT_HEADS = (1, 2, 4, 8)  # for budgets that are not published ones


def searches_from(args: argparse.Namespace) -> list[Search]:
    """Return every search the flags ask for, without duplicates, in the order of the flags."""
    configurations = []
    models = [args.model] if args.model else ["mlp", "transformer"]
    if args.paper and args.heads and not args.model:
        models = ["transformer"]  # narrowing by heads leaves out what has none
    for model in models:
        protocol = protocol_from(args, model)
        rows = _mlps(args, protocol) if model == "mlp" else _transformers(args, protocol)
        configurations += [(architecture, protocol, budget) for architecture, budget in rows]
    if not configurations:
        raise UserError("no published row has these --layers and --heads")
    searches = {}
    for architecture, protocol, budget in configurations:
        limit = max_mappings(protocol.vocab_size, protocol.seq_len)
        if args.max_size is not None:
            limit = min(limit, args.max_size)
        for repeat in range(args.repeats):
            search = Search(architecture, protocol, budget, repeat, args.seed, limit, args.max_size)
            searches[search] = None
    return list(searches)


def _mlps(args: argparse.Namespace, protocol: Protocol) -> list[tuple[MLPArchitecture, int]]:
    for flag, value in (("--heads", args.heads), ("--d-ff", args.d_ff)):
        if value and not args.paper:
            raise UserError(f"{flag} is for transformers only")
    task = (protocol.vocab_size, protocol.seq_len)
    depths = mlp_utils.PAPER_DEPTHS if args.layers is None else args.layers
    if args.paper:
        return [
            (mlp_utils.architecture_for_budget(budget, depth, *task), budget)
            for budget in mlp_utils.PAPER_BUDGETS
            for depth in mlp_utils.PAPER_DEPTHS
            if depth in depths
        ]
    if args.hidden_size:
        fixed = [
            MLPArchitecture(width if depth else 0, depth, *task)
            for depth in depths
            for width in args.hidden_size
        ]
        return [(a, args.params or a.num_parameters) for a in fixed]
    return [
        (mlp_utils.architecture_for_budget(args.params, depth, *task), args.params)
        for depth in depths
    ]


def _transformers(args: argparse.Namespace, protocol: Protocol) -> list[tuple]:
    depths = args.layers or transformer_budgets.PAPER_DEPTHS
    budgets = [args.params]
    if args.paper:
        budgets = transformer_budgets.PAPER_CONFIGURATIONS
        depths = [depth for depth in transformer_budgets.PAPER_DEPTHS if depth in depths]
    rows = []
    for budget in budgets:
        published_heads = transformer_budgets.PAPER_HEADS.get(budget, DEFAULT_HEADS)
        wanted_heads = args.heads or published_heads
        if args.paper:
            wanted_heads = [heads for heads in published_heads if heads in wanted_heads]
        for depth in depths:
            for heads in wanted_heads:
                for size in args.hidden_size or [None]:
                    for width in args.d_ff or [None]:
                        architecture = transformer_budgets.architecture_for_budget(
                            budget,
                            heads,
                            depth,
                            hidden_size=size,
                            d_ff=width,
                            exact=args.exact_params,
                            vocab_size=protocol.vocab_size,
                            seq_len=protocol.seq_len,
                        )
                        rows.append((architecture, budget or architecture.num_parameters))
    return rows


def label_notes(searches: list[Search]) -> list[str]:
    """Return one line per budget whose label is not the true count of its transformers."""
    notes = {}
    for search in searches:
        if search.architecture.model == "transformer" and search.budget not in notes:
            note = transformer_budgets.label_note(search.budget, search.architecture)
            notes[search.budget] = note
    return [note for note in notes.values() if note]
