"""The numbers made of raw words: distributions, the rule of what is taken, the bits themselves."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import chisquare, kstest

from dataset.random_stream import RandomStream, little_endian, natural_log

BOUNDS = [1, 2, 3, 10, 255, 256, 257, 1000, 2**16, 2**16 + 1, 2**32, 2**32 + 1, 2**62, 2**63 - 1]


def words_taken(draw):
    """How many words of a stream ``draw(stream)`` takes."""
    stream = RandomStream(7)
    draw(stream)
    (following,) = stream.words(1)
    return RandomStream(7).words(200_000).tolist().index(following)


def test_words_are_numpys_raw_words_however_they_are_asked_for():
    raw = np.random.SFC64(5).random_raw(12)
    stream = RandomStream(5)
    parts = [stream.words(count) for count in (3, 0, 1, 8)]
    np.testing.assert_array_equal(np.concatenate(parts), raw)
    assert all(part.dtype == np.uint64 for part in parts)


def test_a_seed_sequence_stays_as_it_is():
    sequence = np.random.SeedSequence([1, 2, 3])
    first, second = (RandomStream(sequence).words(9) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert sequence.n_children_spawned == 0


@pytest.mark.parametrize("itemsize", [1, 2, 4, 8])
def test_the_lowest_bits_come_first(itemsize):
    words = RandomStream(1).words(5)
    bits = 8 * itemsize
    expected = [
        (word >> bits * lane) % 2**bits for word in words.tolist() for lane in range(8 // itemsize)
    ]
    assert little_endian(words, itemsize).tolist() == expected
    assert little_endian(words.astype(">u8"), itemsize).tolist() == expected


# --- Integers --------------------------------------------------------------------------------


def integers_by_the_rule(bound, count):
    """The documented rule, one word and one integer at a time; also the words it took."""
    size = next(bits for bits in (8, 16, 32, 64) if bound - 1 < 2**bits)
    stream, found, taken = RandomStream(7), [], 0
    while len(found) < count:
        (word,) = stream.words(1).tolist()
        taken += 1
        parts = [(word >> shift) % 2 ** (bound - 1).bit_length() for shift in range(0, 64, size)]
        found += [part for part in parts if part < bound]
    return found[:count], taken


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 1000])
@pytest.mark.parametrize("bound", BOUNDS)
def test_integers_follow_the_rule(bound, count):
    values = RandomStream(7).integers(bound, count)
    expected, taken = integers_by_the_rule(bound, count)
    assert values.tolist() == expected
    assert values.dtype == np.min_scalar_type(bound - 1) and values.dtype.isnative
    assert words_taken(lambda stream: stream.integers(bound, count)) == taken


@pytest.mark.parametrize("bound", BOUNDS[1:])
def test_integers_are_uniform(bound):
    values = RandomStream(3).integers(bound, 40_000)
    cells = min(bound, 50)  # of nearly equal size
    edges = [-(-cell * bound // cells) for cell in range(cells + 1)]
    counts = np.bincount(
        np.searchsorted(np.array(edges[1:-1], np.uint64), values, side="right"), minlength=cells
    )
    expected = [40_000 * (b - a) / bound for a, b in itertools.pairwise(edges)]
    assert chisquare(counts, expected).pvalue > 1e-3


def test_neighbouring_integers_are_independent():
    values = RandomStream(4).integers(10, 200_001).astype(np.int64)
    for lag in (1, 2, 8):  # within a word and across words
        pairs = values[:-lag] * 10 + values[lag:]
        # Overlapping pairs: half of them, which do not overlap.
        pairs = pairs[np.arange(len(pairs)) // lag % 2 == 0]
        assert chisquare(np.bincount(pairs, minlength=100)).pvalue > 1e-3


@pytest.mark.parametrize("bound", [0, -1, 2**63, 2**64])
def test_a_bound_out_of_range(bound):
    with pytest.raises(ValueError, match=f"from 1 to 9223372036854775807, got {bound}"):
        RandomStream(0).integers(bound, 3)


# --- Permutations ----------------------------------------------------------------------------


@pytest.mark.parametrize("n", [0, 1, 2, 3, 31, 32, 33, 512, 1000, 100_003])
def test_a_permutation_has_every_index_once(n):
    order = RandomStream(n).permutation(n)
    assert order.dtype == np.int64 and order.shape == (n,)
    np.testing.assert_array_equal(np.sort(order), np.arange(n))
    words = RandomStream(n).words(n).tolist()
    assert order.tolist() == sorted(range(n), key=words.__getitem__)
    assert words_taken(lambda stream: stream.permutation(n)) == n


def test_all_orders_of_four_are_as_likely():
    stream = RandomStream(11)
    orders = np.array([stream.permutation(4) for _ in range(24_000)])
    counts = np.unique(orders @ [64, 16, 4, 1], return_counts=True)[1]
    assert len(counts) == 24
    assert chisquare(counts).pvalue > 1e-3


def test_every_index_is_everywhere_as_likely():
    stream = RandomStream(12)
    orders = np.array([stream.permutation(500) for _ in range(4_000)])
    for place in (0, 1, 250, 499):
        assert chisquare(np.bincount(orders[:, place] // 20, minlength=25)).pvalue > 1e-3
        indices = np.argmax(orders == place, axis=1)
        assert chisquare(np.bincount(indices // 20, minlength=25)).pvalue > 1e-3


# --- Uniform and normal numbers --------------------------------------------------------------


def test_uniform_is_the_upper_53_bits():
    values = RandomStream(3).uniform(100_000)
    words = RandomStream(3).words(100_000).tolist()
    assert values.tolist() == [(word >> 11) / 2**53 for word in words]
    assert values.min() >= 0 and values.max() < 1
    assert kstest(values, "uniform").pvalue > 1e-3


def normals_by_the_rule(count):
    """The polar method, one point at a time; also the words it took."""
    stream, found, taken = RandomStream(7), [], 0
    while len(found) < count:
        u, v = (2 * stream.uniform(2) - 1).tolist()
        taken += 2
        s = u * u + v * v
        if 0 < s < 1:
            factor = math.sqrt(-2 * math.log(s) / s)
            found += [u * factor, v * factor]
    return found[:count], taken


@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000, 1001])
def test_normal_follows_the_rule(count):
    values = RandomStream(7).normal(count)
    expected, taken = normals_by_the_rule(count)
    assert values.shape == (count,) and values.dtype == np.float64
    np.testing.assert_allclose(values, expected, rtol=2e-15)
    assert words_taken(lambda stream: stream.normal(count)) == taken


def test_normal_is_normal():
    values = RandomStream(9).normal(200_000)
    assert kstest(values, "norm").pvalue > 1e-3
    radius = values[::2] ** 2 + values[1::2] ** 2  # of independent pairs
    assert kstest(radius, "chi2", (2,)).pvalue > 1e-3
    assert kstest(values[:-1:3] + values[1::3], "norm", (0, math.sqrt(2))).pvalue > 1e-3
    # Of 200,000 the largest is expected near 4.4.
    assert 4 < values.max() < 6 and -6 < values.min() < -4


def test_our_logarithm():
    stream = RandomStream(1)
    exponents = stream.integers(1_500, 50_000).astype(np.int64) - 750
    values = np.concatenate(
        [
            stream.uniform(50_000) + 2.0**-60,
            1 + (stream.uniform(50_000) - 0.5) / 1000,  # where the logarithm is near 0
            np.ldexp(1 + stream.uniform(50_000), exponents),
            [2.0**-104, 5e-324, 2.2e-308, 1.7e308, math.nextafter(1, 0), math.nextafter(1, 2)],
            [0.5, 2, math.sqrt(0.5), math.nextafter(math.sqrt(0.5), 0), math.sqrt(2), math.e],
        ]
    )
    expected = [math.log(value) for value in values.tolist()]
    np.testing.assert_allclose(natural_log(values), expected, rtol=1e-15)
    assert natural_log(np.ones(1)).tolist() == [0.0]


@pytest.mark.parametrize("method", ["integers", "uniform", "normal"])
def test_less_is_the_beginning_of_more(method):
    bound = (10,) if method == "integers" else ()
    longest = getattr(RandomStream(6), method)(*bound, 5_000)
    for count in (1, 2, 3, 64, 999, 4_999):
        shorter = getattr(RandomStream(6), method)(*bound, count)
        np.testing.assert_array_equal(shorter, longest[:count])
