"""Random numbers that are the same bits on every machine and with every version of NumPy.

NumPy promises the raw words of a BitGenerator, but not what the methods of its Generator make of
them. So this module makes its own numbers of the words, by operations that every machine rounds
alike: integer arithmetic, comparisons, + - * / and square roots. Logarithms and sums over arrays
are not among them: NumPy computes those as the CPU at hand does it fastest.
"""

from __future__ import annotations

import numpy as np

LARGEST_BOUND = 2**63 - 1

# Both are the nearest float64.
LN_2 = 0.6931471805599453
SQRT_HALF = 0.7071067811865476
# Up to z**21: with |z| < 0.172 the next term is below 1e-18 of the sum.
ATANH_TERMS = 10


class RandomStream:
    """Numbers from the 64-bit words of NumPy's SFC64; every method takes the next words.

    ``seed`` is a non-negative integer or a SeedSequence, which stays as it is. Where a method
    rejects words, it takes all up to the one that completes its answer, however many at a time it
    looks at. So had more integers, uniform or normal numbers been asked for, the answer would begin
    with the same ones.
    """

    def __init__(self, seed: int | np.random.SeedSequence) -> None:
        self._bits = np.random.SFC64(seed)

    def words(self, count: int) -> np.ndarray:
        """Return the next ``count`` words, (count,) uint64."""
        return self._bits.random_raw(count)

    def integers(self, bound: int, count: int) -> np.ndarray:
        """Return ``count`` integers, uniform in [0, bound), in the smallest unsigned type for them.

        A word is cut into integers of that type, the lowest bits first; of each only the bits that
        ``bound`` - 1 needs are kept, and those that are still too large are dropped. What the last
        word holds beyond the answer is lost. Raises ValueError for a ``bound`` that is not from 1
        to 2**63 - 1.
        """
        if not 1 <= bound <= LARGEST_BOUND:
            raise ValueError(f"the bound must be from 1 to {LARGEST_BOUND}, got {bound}")
        last = int(bound) - 1
        dtype = np.min_scalar_type(last)
        mask = dtype.type((1 << last.bit_length()) - 1)
        per_word = 8 // dtype.itemsize
        result = np.empty(count, dtype)
        filled = 0
        while filled < count:
            missing = count - filled
            # As few words as can be enough, so that none is taken in vain.
            words = self.words(-(-missing // per_word))
            values = little_endian(words, dtype.itemsize) & mask
            values = values[values <= last][:missing]
            result[filled : filled + len(values)] = values
            filled += len(values)
        return result

    def permutation(self, n: int) -> np.ndarray:
        """Return a random order of range(n), (n,) int64.

        Sorts n words whose b lowest bits, as many as n - 1 needs, are replaced by the index. No
        two such keys are equal, so every right way of sorting gives the same order. It is uniform
        unless two of the upper parts are equal, which then stay in ascending order: a chance below
        n**2 / 2 * 2**(b - 64), which is 4e-12 for n = 512 and 3 % for n = 1,000,000.
        """
        low_bits = np.uint64((1 << max(n - 1, 0).bit_length()) - 1)
        keys = self.words(n)
        keys &= ~low_bits
        keys |= np.arange(n, dtype=np.uint64)
        keys.sort()
        keys &= low_bits
        return keys.view(np.int64)

    def uniform(self, count: int) -> np.ndarray:
        """Return the upper 53 bits of ``count`` words as multiples of 2**-53 in [0, 1), float64."""
        return (self.words(count) >> np.uint64(11)) / (1 << 53)

    def normal(self, count: int) -> np.ndarray:
        """Return ``count`` standard normal numbers, (count,) float64.

        The polar method of Marsaglia and Bray (A convenient method for generating normal
        variables, SIAM Review 6, 1964): of points uniform in the square [-1, 1)**2 those within
        the unit circle, s = u*u + v*v < 1, become the two numbers u*f and v*f with
        f = sqrt(-2 ln(s) / s). If ``count`` is odd, the last one of these is lost.
        """
        pairs = np.empty((-(-count // 2), 2))
        filled = 0
        while filled < len(pairs):
            points = 2 * self.uniform(2 * (len(pairs) - filled)).reshape(-1, 2) - 1
            u, v = points.T
            s = u * u + v * v
            inside = (s > 0) & (s < 1)
            points, s = points[inside], s[inside]
            factor = np.sqrt(-2 * natural_log(s) / s)
            pairs[filled : filled + len(points)] = points * factor[:, np.newaxis]
            filled += len(points)
        return pairs.reshape(-1)[:count]


def little_endian(words: np.ndarray, itemsize: int) -> np.ndarray:
    """Return ``words`` (n,) uint64 cut into unsigned integers of ``itemsize`` bytes.

    The lowest bytes of a word come first, as they do in memory on nearly every machine.
    """
    return words.astype("<u8", copy=False).view(f"<u{itemsize}")


def natural_log(x: np.ndarray) -> np.ndarray:
    """Return ln(x) of positive, finite float64, with a relative error below 1e-15.

    x = m * 2**e with m in [sqrt(1/2), sqrt(2)), then ln(x) = e ln(2) + 2 atanh(z) with
    z = (m - 1) / (m + 1), and atanh(z) = z + z**3/3 + z**5/5 + ...
    """
    m, e = np.frexp(x)  # m in [1/2, 1)
    small = m < SQRT_HALF
    m = np.where(small, 2 * m, m)
    e = e - small
    z = (m - 1) / (m + 1)
    square = z * z
    series = np.zeros_like(z)  # 1/3 + z**2/5 + ...
    for k in range(ATANH_TERMS, 0, -1):
        series = series * square + 1 / (2 * k + 1)
    return e * LN_2 + 2 * (z + z * (square * series))
