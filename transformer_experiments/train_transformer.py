"""Train one transformer on random examples and say whether it memorized all of them.

    python transformer_experiments/train_transformer.py --params 64000 --heads 32 --layers 2
    python transformer_experiments/train_transformer.py --params 64000 --heads 4 --exact-params
    python transformer_experiments/train_transformer.py --hidden-size 32 --d-ff 128 --heads 4
    python transformer_experiments/train_transformer.py --architecture decoder-only --params 34342

Of the published model, cross-attention, 32000, 64000 and 128000 mean the published configurations,
whose true counts are higher; any other budget is solved for its true count. Writes nothing but the
files you name.
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
from transformer_experiments import decoder_only_utils, transformer_utils

ARCHITECTURES = {
    "cross-attention": transformer_utils.SPEC,
    "decoder-only": decoder_only_utils.SPEC,
}


def main() -> None:
    """Read the flags, train, report."""
    train_script(ARCHITECTURES, __doc__)


if __name__ == "__main__":
    run(main)
