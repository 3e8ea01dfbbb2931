"""Train one transformer on random sequence mappings and say whether it memorized all of them.

    python transformer_experiments/train_transformer.py --params 64000 --heads 32 --layers 2
    python transformer_experiments/train_transformer.py --params 64000 --heads 4 --exact-params
    python transformer_experiments/train_transformer.py --hidden-size 32 --d-ff 128 --heads 4

32000, 64000 and 128000 mean the published configurations, whose true counts are higher; any other
budget is solved for its true count. Writes nothing but the files you name.
"""

from __future__ import annotations

from training.cli import Parser, positive_int, run
from training.flags import add_protocol_flags, protocol_from
from training.single_run import add_run_flags, train_and_report
from transformer_experiments.budgets import architecture_for_budget, label_note

DEFAULT_SEQUENCES = 16


def main() -> None:
    """Read the flags, train, report."""
    parser = Parser(__doc__)
    parser.add_argument("--params", type=positive_int, metavar="P", help="parameter budget")
    parser.add_argument(
        "--heads", type=positive_int, metavar="H", default=4, help="attention heads per layer"
    )
    parser.add_argument(
        "--layers", type=positive_int, metavar="L", default=1, help="decoder layers"
    )
    parser.add_argument(
        "--hidden-size", type=positive_int, metavar="D", help="fix d_model, a multiple of the heads"
    )
    parser.add_argument("--d-ff", type=positive_int, metavar="F", help="fix the feed-forward width")
    parser.add_argument(
        "--exact-params",
        action="store_true",
        help="solve 32000, 64000 and 128000 for their true count too (default: off)",
    )
    add_run_flags(parser, DEFAULT_SEQUENCES)
    add_protocol_flags(parser, ("transformer",))
    args = parser.parse_args()

    protocol = protocol_from(args, "transformer")
    architecture = architecture_for_budget(
        args.params,
        args.heads,
        args.layers,
        hidden_size=args.hidden_size,
        d_ff=args.d_ff,
        exact=args.exact_params,
        vocab_size=protocol.vocab_size,
        seq_len=protocol.seq_len,
    )
    budget = args.params or architecture.num_parameters
    train_and_report(args, architecture, protocol, budget, label_note(budget, architecture))


if __name__ == "__main__":
    run(main)
