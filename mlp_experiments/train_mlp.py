"""Train one MLP on random examples and say whether it memorized all of them.

    python mlp_experiments/train_mlp.py --params 10000 --layers 1
    python mlp_experiments/train_mlp.py --params 30000 --layers 2 --num-sequences 900 --json
    python mlp_experiments/train_mlp.py --hidden-size 49 --history history.csv --save weights.pt

The same seed, repeat and number of sequences as a probe of the threshold search train that probe
again. Writes nothing but the files you name.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # this checkout's code, whichever one the environment has installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from command_line.parser import begin

    begin()

from command_line.parser import run
from command_line.training_script import train_script
from mlp_experiments.mlp_utils import SPEC


def main() -> None:
    """Read the flags, train, report."""
    train_script(SPEC, __doc__)


if __name__ == "__main__":
    run(main)
