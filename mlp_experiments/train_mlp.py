"""Train one MLP on random sequence mappings and say whether it memorized all of them.

    python mlp_experiments/train_mlp.py --params 10000 --layers 1
    python mlp_experiments/train_mlp.py --params 30000 --layers 2 --num-sequences 900 --json
    python mlp_experiments/train_mlp.py --hidden-size 49 --history history.csv --save weights.pt

The same seed, repeat and number of sequences as a probe of the threshold search train that probe
again. Writes nothing but the files you name.
"""

from __future__ import annotations

from mlp_experiments.mlp_utils import MLPArchitecture, architecture_for_budget
from training.cli import Parser, non_negative_int, positive_int, run
from training.errors import UserError
from training.flags import add_protocol_flags, protocol_from
from training.single_run import add_run_flags, train_and_report

DEFAULT_SEQUENCES = 256


def main() -> None:
    """Read the flags, train, report."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--params", type=positive_int, metavar="P", help="parameter budget, solved for the width"
    )
    parser.add_argument(
        "--layers", type=non_negative_int, metavar="L", default=1, help="hidden layers, 0 or more"
    )
    parser.add_argument(
        "--hidden-size", type=positive_int, metavar="H", help="units per layer instead of --params"
    )
    add_run_flags(parser, DEFAULT_SEQUENCES)
    add_protocol_flags(parser, ("mlp",))
    args = parser.parse_args()

    protocol = protocol_from(args, "mlp")
    task = (protocol.vocab_size, protocol.seq_len)
    if args.hidden_size is not None:
        architecture = MLPArchitecture(args.hidden_size, args.layers, *task)
    elif args.params is not None or args.layers == 0:
        architecture = architecture_for_budget(args.params or 1, args.layers, *task)
    else:
        raise UserError("give --params or --hidden-size")
    budget = args.params or architecture.num_parameters
    train_and_report(args, architecture, protocol, budget, None)


if __name__ == "__main__":
    run(main)
