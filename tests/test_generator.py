"""The generator: what a mapping is, uniformity, prefixes, every size of space, the script."""

import itertools
import time
from collections import Counter

import numpy as np
import pytest
from scipy.stats import chisquare
from scripts import ROOT, run_script

from dataset import synthetic_generator
from dataset.synthetic_generator import generate_mappings, max_mappings

GENERATOR = ROOT / "dataset" / "synthetic_generator.py"
SEED_0 = "2 3 9 5 1 1 2 8 9 9 -> 5 2 0 9 2 4 6 3 5 0"


def assert_sound(mappings, n, vocab_size, seq_len):
    """Right shape and type, tokens in range, all 2n sequences distinct."""
    for side in (mappings.inputs, mappings.labels):
        assert side.shape == (n, seq_len) and side.dtype == np.int64
        assert side.min() >= 0 and side.max() < vocab_size
    rows = np.concatenate([mappings.inputs, mappings.labels])
    assert len(np.unique(rows, axis=0)) == 2 * n


def assert_prefix(shorter, longer):
    n = len(shorter.inputs)
    np.testing.assert_array_equal(shorter.inputs, longer.inputs[:n])
    np.testing.assert_array_equal(shorter.labels, longer.labels[:n])


@pytest.mark.parametrize("n", [1, 2, 3, 511, 512, 513, 5_000])
def test_published_task(n):
    assert_sound(generate_mappings(n), n, 10, 10)


@pytest.mark.parametrize(
    ("vocab_size", "seq_len", "limit"),
    [(2, 1, 1), (3, 1, 1), (2, 3, 4), (3, 3, 13), (7, 2, 24)],
)
def test_tiny_space_to_the_last_mapping(vocab_size, seq_len, limit):
    assert max_mappings(vocab_size, seq_len) == limit
    for seed, n in itertools.product(range(20), range(1, limit + 1)):
        assert_sound(generate_mappings(n, vocab_size, seq_len, seed), n, vocab_size, seq_len)
    with pytest.raises(ValueError):
        generate_mappings(limit + 1, vocab_size, seq_len)


@pytest.mark.parametrize(
    ("vocab_size", "seq_len"),
    [(100, 64), (2, 62), (2, 63), (2, 64), (300, 2), (70_000, 3), (2**40, 1), (2**63 - 1, 2)],
)
def test_large_spaces(vocab_size, seq_len):
    mappings = generate_mappings(2_000, vocab_size, seq_len)
    assert_sound(mappings, 2_000, vocab_size, seq_len)
    assert mappings.inputs.max() > 0.9 * (vocab_size - 1)  # all tokens are in use
    assert_prefix(generate_mappings(700, vocab_size, seq_len), mappings)


@pytest.mark.parametrize(
    ("vocab_size", "seq_len"),
    [
        (10, 10),  # repeats are rare
        (2, 12),  # drawn until 1024 draws are there, then shuffled
        (10, 5),  # several draws with many repeats, then shuffled
        (2, 11),
        (100, 64),
    ],
)
def test_smaller_is_a_prefix_of_larger(vocab_size, seq_len):
    limit = min(max_mappings(vocab_size, seq_len), 50_000)
    sizes = {1, 2, 100, *range(440, 520, 7), 511, 512, 513, 1023, 1024, 1025, 2048, 9_999, limit}
    longest = generate_mappings(limit, vocab_size, seq_len, seed=5)
    for n in sizes:
        if n <= limit:
            assert_prefix(generate_mappings(n, vocab_size, seq_len, seed=5), longest)


# first_draw: with 1024 a tiny space is all drawn, with 1 nearly all of it is shuffled.
@pytest.mark.parametrize("first_draw", [1, 2, 1024])
def test_every_arrangement_is_as_likely(first_draw, monkeypatch):
    monkeypatch.setattr(synthetic_generator, "FIRST_DRAW", first_draw)
    drawn = (generate_mappings(2, 2, 2, seed) for seed in range(2_400))
    counts = Counter(mappings.inputs.tobytes() + mappings.labels.tobytes() for mappings in drawn)
    assert len(counts) == 24  # 4 sequences in every order: who is in, on which side, with whom
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_every_row_is_uniform_where_drawing_ends_and_shuffling_begins():
    runs, space = 1_200, 2**10  # 1024 draws find about 650 sequences, the rest is shuffled
    powers = 2 ** np.arange(9, -1, -1)
    codes = np.array(
        [
            [side @ powers for side in (mappings.inputs, mappings.labels)]
            for mappings in (generate_mappings(space // 2, 2, 10, seed) for seed in range(runs))
        ]
    )  # (runs, 2, 512)
    pvalues = [
        chisquare(np.bincount(codes[:, side, row] // 32, minlength=32)).pvalue
        for side in (0, 1)
        for row in (0, 1, 100, 300, 320, 330, 350, 400, 510, 511)
    ]
    assert min(pvalues) > 1e-3
    # A label says nothing about its input: 8 x 8 cells over all pairs of all runs.
    cells = np.bincount((codes[:, 0] // 128 * 8 + codes[:, 1] // 128).ravel(), minlength=64)
    same = np.arange(64) // 8 == np.arange(64) % 8  # a label is never its own input
    expected = runs * 512 * np.where(same, 128 * 127, 128 * 128) / (space * (space - 1))
    assert chisquare(cells, expected).pvalue > 1e-3


def test_tokens_are_uniform_in_the_published_space():
    mappings = generate_mappings(20_000, seed=3)
    for side in (mappings.inputs, mappings.labels):
        for column in side.T:
            assert chisquare(np.bincount(column, minlength=10)).pvalue > 1e-3


def test_seeds():
    assert_prefix(generate_mappings(20, seed=4), generate_mappings(20, seed=4))
    assert not np.array_equal(
        generate_mappings(20, seed=4).inputs, generate_mappings(20, seed=5).inputs
    )
    sequence = np.random.SeedSequence([1, 2, 3]).spawn(1)[0]
    first = generate_mappings(20, seed=sequence)
    assert_prefix(first, generate_mappings(20, seed=sequence))
    assert sequence.n_children_spawned == 0


@pytest.mark.parametrize(("n", "seq_len"), [(500_000, 6), (1_000_000, 10)])  # all, and some
def test_a_million_mappings_in_seconds(n, seq_len):
    start = time.perf_counter()
    mappings = generate_mappings(n, seq_len=seq_len)
    assert time.perf_counter() - start < 30
    rows = np.concatenate([mappings.inputs, mappings.labels])
    codes = np.sort(rows @ 10 ** np.arange(seq_len - 1, -1, -1))
    assert (codes[1:] > codes[:-1]).all()


@pytest.mark.parametrize(
    ("n", "vocab_size", "seq_len", "clue"),
    [
        (0, 10, 10, "num_sequences must be from 1 to 5000000000, got 0"),
        (-3, 2, 3, "num_sequences must be from 1 to 4, got -3"),
        (5, 2, 3, "num_sequences 5 is beyond the 4 examples"),
        (5 * 10**9 + 1, 10, 10, "beyond the 5000000000 examples"),
        (10**20, 100, 64, "memory"),
        (1, 1, 10, "vocab_size"),
        (1, 2**63, 10, "vocab_size"),
        (1, 10, 0, "seq_len"),
    ],
)
def test_out_of_range(n, vocab_size, seq_len, clue):
    with pytest.raises((ValueError, MemoryError), match=clue):
        generate_mappings(n, vocab_size, seq_len)


def test_script_prints(tmp_path):
    ended = run_script(GENERATOR, "--num-sequences", 3, cwd=tmp_path)
    assert ended.returncode == 0 and ended.stderr == ""
    lines = ended.stdout.splitlines()
    assert len(lines) == 3 and lines[0] == SEED_0
    assert SEED_0 in synthetic_generator.__doc__
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["mappings.csv", "mappings.npz"])
def test_script_saves(name, tmp_path):
    path = tmp_path / name
    path.write_text("an older file is replaced")
    task = ("--num-sequences", 40, "--vocab-size", 12, "--seq-len", 5, "--seed", 9)
    ended = run_script(GENERATOR, *task, "--save", name, cwd=tmp_path)
    assert ended.returncode == 0 and ended.stderr == ""
    expected = generate_mappings(40, 12, 5, seed=9)
    if path.suffix == ".npz":
        with np.load(path) as saved:
            assert sorted(saved.files) == ["inputs", "labels"]
            inputs, labels = saved["inputs"], saved["labels"]
    else:
        columns = [f"{side}_{t}" for side in ("input", "label") for t in range(5)]
        assert path.read_text().splitlines()[0].split(",") == columns
        table = np.loadtxt(path, dtype=np.int64, delimiter=",", skiprows=1)
        inputs, labels = table[:, :5], table[:, 5:]
    np.testing.assert_array_equal(inputs, expected.inputs)
    np.testing.assert_array_equal(labels, expected.labels)
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    ("flags", "clue"),
    [
        ("", "--num-sequences"),
        ("--num-sequences few --save a.csv", "whole number"),
        ("--num-sequences 5 --vocab-size 2 --seq-len 3 --save a.csv", "the 4 examples"),
        ("--num-sequences 5 --vocab-size 1 --save a.npz", "--vocab-size"),
        ("--num-sequences 5 --seq-len 0 --save a.npz", "--seq-len"),
        ("--num-sequences 5 --seed -1 --save a.npz", "at least 0"),
        ("--num-sequences 5 --save a.txt", ".csv or .npz"),
        ("--num-sequences 5 --save missing/a.csv", "cannot write"),
    ],
)
def test_script_refuses(flags, clue, tmp_path):
    ended = run_script(GENERATOR, *flags.split(), cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.count("\n") == 1 and ended.stderr.endswith("\n"), ended.stderr
    assert clue in ended.stderr
    assert list(tmp_path.iterdir()) == []
