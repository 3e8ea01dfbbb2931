"""The threshold search as a pure generator: it yields a size and receives a verdict.

Doubling from 2 until a size fails, then bisection between the last success and that failure, as
published. No torch, no files: tested without any training.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass

FIRST_SIZE = 2


@dataclass(frozen=True)
class Bounds:
    """Where a search ended.

    ``threshold`` is the largest size memorized (0 if none was); ``first_failure`` is one more, the
    published convention, or None when the search hit its limit without a failure.
    """

    threshold: int
    first_failure: int | None


def search_sizes(limit: int) -> Generator[int, bool, Bounds]:
    """Yield sizes from 1 to ``limit``, each at most once; receive whether it was memorized.

    The published bisection may ask for the last doubled size again. A probe is a pure function,
    so its first verdict stands and it is not asked twice.
    """
    size, success = min(FIRST_SIZE, limit), 0
    while (yield size):
        success = size
        if size == limit:
            return Bounds(limit, None)
        size = min(2 * size, limit)
    failure = size
    low, high = max(success, 1), failure
    while low < high:
        middle = (low + high) // 2
        if middle == success or (yield middle):
            success, low = middle, middle + 1
        else:
            high = middle
    return Bounds(low - 1, low)


def next_size(limit: int, verdicts: Iterable[bool]) -> int | None:
    """Return what a search asks for after ``verdicts``, or None if it has ended by then."""
    sizes = search_sizes(limit)
    try:
        size = next(sizes)
        for memorized in verdicts:
            size = sizes.send(memorized)
    except StopIteration:
        return None
    return size
