"""Random sequence-to-sequence mappings: n input sequences, each paired with a label sequence.

    python dataset/synthetic_generator.py --num-sequences 5
    python dataset/synthetic_generator.py --num-sequences 1000 --seed 3 --save mappings.csv
    python dataset/synthetic_generator.py --num-sequences 5 --task facts
    python dataset/synthetic_generator.py --num-sequences 1000000 --save mappings.npz

Prints one mapping per line, input -> label, such as the first one of seed 0:
    2 3 9 5 1 1 2 8 9 9 -> 5 2 0 9 2 4 6 3 5 0
or writes FILE.csv (columns input_0.., label_0..) or FILE.npz (inputs and labels, row by row).
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

if __name__ == "__main__":  # this checkout's code, whichever one the environment has installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from command_line.parser import begin

    begin()

import numpy as np

from dataset.random_stream import RandomStream

FIRST_DRAW = 1024  # sequences; a constant, because nothing drawn may depend on n
LARGEST_INT64 = 2**63 - 1


@dataclass(frozen=True)
class Mappings:
    """n examples row by row: ``inputs`` (n, T), ``labels`` (n, tokens per label), both int64.

    Of a task with real inputs (dataset/task.py) ``inputs`` are float32.
    """

    inputs: np.ndarray
    labels: np.ndarray


def max_mappings(vocab_size: int, seq_len: int) -> int:
    """Return how many mappings there can be: each uses up two of the V**T sequences."""
    return number_of_sequences(vocab_size, seq_len) // 2


def number_of_sequences(vocab_size: int, seq_len: int) -> int:
    """Return V**T, or 2**4096 where it is more: nobody counts that far, and it takes long."""
    bits = seq_len * math.log2(max(vocab_size, 1))
    return vocab_size**seq_len if bits <= 4096 else 2**4096


def generate_mappings(
    num_sequences: int,
    vocab_size: int = 10,
    seq_len: int = 10,
    seed: int | np.random.SeedSequence = 0,
) -> Mappings:
    """Return n = ``num_sequences`` mappings of 2n distinct sequences, uniform over all choices.

    So inputs are distinct, labels are distinct, no label is an input, and who is paired with whom
    is random. For one seed, the mappings of a smaller n are the first ones of a larger n. Raises
    ValueError when the numbers are out of range, MemoryError when the result does not fit.
    """
    n = num_sequences
    require_size(n, vocab_size, seq_len, max_mappings(vocab_size, seq_len))
    try:
        halves = np.empty((2, n, seq_len), np.int64)
    except (MemoryError, ValueError):  # ValueError: beyond what an array can address
        raise MemoryError(f"num_sequences {n} does not fit in this machine's memory") from None
    sequences = distinct_sequences(2 * n, vocab_size, seq_len, seed)  # (2n, T)
    halves[:] = sequences.reshape(n, 2, seq_len).swapaxes(0, 1)  # neighbours make a pair
    return Mappings(inputs=halves[0], labels=halves[1])


def require_size(n: int, vocab_size: int, seq_len: int, limit: int) -> None:
    """Raise ValueError unless there are such sequences, and n is from 1 to ``limit``."""
    if not 2 <= vocab_size <= LARGEST_INT64:
        raise ValueError(f"vocab_size must be from 2 to {LARGEST_INT64}, got {vocab_size}")
    if seq_len < 1:
        raise ValueError(f"seq_len must be at least 1, got {seq_len}")
    if n < 1:
        raise ValueError(f"num_sequences must be from 1 to {limit}, got {n}")
    if n > limit:
        raise ValueError(
            f"num_sequences {n} is beyond the {limit} examples that "
            f"{vocab_size} tokens and length {seq_len} allow"
        )


def distinct_sequences(
    count: int, vocab_size: int, seq_len: int, seed: int | np.random.SeedSequence
) -> np.ndarray:
    """Return ``count`` distinct sequences in random order, (count, T) of the smallest uint.

    Draws sequences and drops repeats while repeats are few, which is until 1/8 of the space is
    used up; then shuffles what is left of it. Both give every order of the V**T sequences the
    same chance. Every draw is as large as what is there already, whatever ``count`` is, so that
    ``count`` only says where to cut one and the same order.
    """
    random = RandomStream(seed)
    sequences = np.empty((0, seq_len), _token_type(vocab_size))
    while len(sequences) < count:
        if 8 * len(sequences) >= number_of_sequences(vocab_size, seq_len):
            codes = _unused_codes(sequences, vocab_size)
            codes = codes[random.permutation(len(codes))]
            sequences = np.concatenate([sequences, _decode(codes, vocab_size, seq_len)])
        else:
            rows = max(FIRST_DRAW, len(sequences))
            drawn = random.integers(vocab_size, rows * seq_len).reshape(rows, seq_len)
            sequences = _without_repeats(np.concatenate([sequences, drawn]), vocab_size)
    return sequences[:count]


def _token_type(vocab_size: int) -> np.dtype:
    return np.min_scalar_type(vocab_size - 1)


def _without_repeats(sequences: np.ndarray, vocab_size: int) -> np.ndarray:
    """Return the rows of ``sequences`` (m, T) that differ from all earlier rows, in order."""
    if number_of_sequences(vocab_size, sequences.shape[1]) <= LARGEST_INT64:
        keys = _encode(sequences, vocab_size)
    else:  # compare the bytes of whole rows; S because NumPy sorts it faster than void
        keys = sequences.view(f"S{sequences.shape[1] * sequences.itemsize}")[:, 0]
    ordered = np.sort(keys)
    if (ordered[1:] != ordered[:-1]).all():
        return sequences  # the usual case for small n, and sorting alone is several times faster
    _, first = np.unique(keys, return_index=True)
    return sequences[np.sort(first)]


def _unused_codes(sequences: np.ndarray, vocab_size: int) -> np.ndarray:
    """Return the codes of the V**T - m sequences that are not among the rows of (m, T)."""
    unused = np.ones(vocab_size ** sequences.shape[1], bool)
    unused[_encode(sequences, vocab_size)] = False
    return np.flatnonzero(unused)


def _encode(sequences: np.ndarray, vocab_size: int) -> np.ndarray:
    """Return each row of (m, T) as one number in base V, (m,) int64; V**T must fit."""
    codes = np.zeros(len(sequences), np.int64)
    for column in sequences.T:
        codes = codes * vocab_size + column.astype(np.int64)
    return codes


def _decode(codes: np.ndarray, vocab_size: int, seq_len: int) -> np.ndarray:
    """Return the sequences (m, T) of ``codes`` (m,): the inverse of :func:`_encode`."""
    sequences = np.empty((len(codes), seq_len), _token_type(vocab_size))
    for position in reversed(range(seq_len)):
        codes, sequences[:, position] = np.divmod(codes, vocab_size)
    return sequences


def _print(mappings: Mappings, vocab_size: int) -> None:
    width = len(str(vocab_size - 1))
    for pair in zip(mappings.inputs.tolist(), mappings.labels.tolist(), strict=True):
        print(" -> ".join(" ".join(f"{token:{width}}" for token in side) for side in pair))


def _write_csv(file: BinaryIO, mappings: Mappings) -> None:
    sides = ("input", mappings.inputs), ("label", mappings.labels)
    header = ",".join(f"{side}_{t}" for side, tokens in sides for t in range(tokens.shape[1]))
    rows = np.hstack([mappings.inputs, mappings.labels])
    number = "%d" if rows.dtype.kind == "i" else "%.9g"  # all digits of float32
    np.savetxt(file, rows, fmt=number, delimiter=",", header=header, comments="")


def _write_npz(file: BinaryIO, mappings: Mappings) -> None:
    np.savez(file, inputs=mappings.inputs, labels=mappings.labels)


WRITERS = {".csv": _write_csv, ".npz": _write_npz}


def main() -> None:
    """Read the flags, generate, print or save."""
    # Here, so that the module itself needs NumPy alone.
    from command_line.files import require_writable, write_whole
    from command_line.parser import Parser, non_negative_int, positive_int, user_path
    from engines.memory import within_memory
    from training.errors import OutOfMemory, UserError
    from training.protocol import Protocol

    parser = Parser(__doc__)
    parser.add_argument(
        "--num-sequences", type=positive_int, metavar="N", required=True, help="examples to make"
    )
    parser.add_argument(
        "--vocab-size", type=positive_int, metavar="V", default=10, help="different tokens"
    )
    parser.add_argument(
        "--seq-len", type=positive_int, metavar="T", default=10, help="tokens per sequence"
    )
    parser.add_argument(
        "--task", metavar="TASK", default="bijection", help="as of the training scripts"
    )
    parser.add_argument(
        "--seed", type=non_negative_int, metavar="N", default=0, help="seed of the random numbers"
    )
    parser.add_argument(
        "--save",
        type=user_path,
        metavar="FILE",
        help="write FILE.csv or FILE.npz (replacing it) instead of printing",
    )
    args = parser.parse_args()

    if args.save:
        if args.save.suffix.lower() not in WRITERS:
            raise UserError(f"--save must name a file ending in .csv or .npz, got {args.save}")
        require_writable(args.save)
    protocol = Protocol(task=args.task, vocab_size=args.vocab_size, seq_len=args.seq_len)
    task = protocol.make_task()
    try:
        with within_memory():
            try:
                mappings = task.generate(args.num_sequences, args.seed)
            except ValueError as error:  # it begins with the name of a parameter
                raise UserError("--" + str(error).replace("_", "-")) from None
            if args.save:
                write = WRITERS[args.save.suffix.lower()]
                write_whole(args.save, lambda file: write(file, mappings))
                print(f"wrote {args.num_sequences} examples to {args.save}")
            else:
                _print(mappings, args.vocab_size)
    except MemoryError:
        what = f"{args.num_sequences} examples of {args.seq_len} tokens"
        raise OutOfMemory(f"{what} do not fit in this machine's memory") from None


if __name__ == "__main__":
    from command_line.parser import run

    run(main)
