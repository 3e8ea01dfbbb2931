"""The search generator against the published loop written out, and against noisy oracles."""

import random

import pytest

from threshold_search.questions.bisection import Bounds, search_sizes

HUGE = 10**9


def run_search(limit, memorizes):
    """Return (bounds, sizes asked in order)."""
    sizes, asked = search_sizes(limit), []
    size = next(sizes)
    while True:
        asked.append(size)
        try:
            size = sizes.send(memorizes(size))
        except StopIteration as end:
            return end.value, asked


def published_loop(memorizes):
    """The published procedure, literally; returns (its number, sizes asked in order)."""
    asked = []

    def probe(n):
        asked.append(n)
        return memorizes(n)

    high = 2
    while probe(high):
        high *= 2
    low = high // 2
    while low != high:
        middle = (low + high) // 2
        if probe(middle):
            low = middle + 1
        else:
            high = middle
    return low, asked


@pytest.mark.parametrize("threshold", range(301))
def test_finds_every_step(threshold):
    bounds, asked = run_search(HUGE, lambda n: n <= threshold)
    number, published = published_loop(lambda n: n <= threshold)
    assert bounds == Bounds(threshold, threshold + 1)
    assert bounds.first_failure == number
    once = list(dict.fromkeys(published))  # the published loop may ask for a size again
    assert asked == once


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7, 8, 50, 64, 100])
def test_limit_is_never_passed_and_is_reported(limit):
    for threshold in range(130):
        bounds, asked = run_search(limit, lambda n, t=threshold: n <= t)
        assert max(asked) <= limit
        expected = (limit, None) if threshold >= limit else (threshold, threshold + 1)
        assert (bounds.threshold, bounds.first_failure) == expected


@pytest.mark.parametrize("seed", range(300))
def test_noisy_oracle_ends_between_a_success_and_a_failure(seed):
    noise = random.Random(seed)
    limit = noise.choice([5, 37, 200, HUGE])
    middle, width = noise.uniform(1, 150), noise.uniform(0.1, 60)
    verdicts = {}

    def memorizes(n):
        assert n not in verdicts, "asked twice"
        assert 1 <= n <= limit
        verdicts[n] = noise.random() < 1 / (1 + pow(2.718, min((n - middle) / width, 500)))
        return verdicts[n]

    bounds, _ = run_search(limit, memorizes)
    assert bounds.threshold == 0 or verdicts[bounds.threshold] is True
    if bounds.first_failure is None:
        assert bounds.threshold == limit
    else:
        assert verdicts[bounds.first_failure] is False
        assert bounds.first_failure == bounds.threshold + 1
