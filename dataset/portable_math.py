"""Functions whose last bit would depend on the machine, made of operations that round alike."""

from __future__ import annotations

import math

import numpy as np

# cos x = sum of (-1)^k x^2k / (2k)!, to x^20: with |x| <= pi/4 the next term is below 1e-23.
# Likewise sin x / x = sum of (-1)^k x^2k / (2k + 1)!.
TERMS = 11
COSINE = [(-1) ** k / math.factorial(2 * k) for k in range(TERMS)]
SINE = [(-1) ** k / math.factorial(2 * k + 1) for k in range(TERMS)]


def cos_pi(x: np.ndarray) -> np.ndarray:
    """Return cos(pi x) for ``x`` in [0, 1], any shape, float64, to 1e-15 absolute."""
    folded = np.where(x > 0.5, 1 - x, x)  # cos(pi x) = -cos(pi (1 - x))
    near, far = np.pi * folded, np.pi * (0.5 - folded)
    value = np.where(folded <= 0.25, _series(COSINE, near), far * _series(SINE, far))
    return np.where(x > 0.5, -value, value)


def _series(coefficients: list[float], x: np.ndarray) -> np.ndarray:
    """Return the sum of coefficients[k] * x^2k."""
    square, total = x * x, np.zeros_like(x)
    for coefficient in reversed(coefficients):
        total = total * square + coefficient
    return total


def ordered_sum(x: np.ndarray) -> np.ndarray:
    """Return the sum over the first axis, by halves: NumPy's own order depends on the machine."""
    while len(x) > 1:
        half = (len(x) + 1) // 2
        folded = x[:half].copy()
        folded[: len(x) - half] += x[half:]
        x = folded
    return x[0]


def orthonormal_columns(x: np.ndarray) -> np.ndarray:
    """Return the orthonormal columns that Gram and Schmidt's process makes of ``x`` (m, k), m >= k.

    In the modified form, whose rounding errors stay small. It is the Q of the QR decomposition with
    a positive diagonal of R; for independent standard normal ``x`` it is uniform over all such
    matrices (Mezzadri, How to generate random matrices from the classical compact groups, Notices
    of the AMS 54, 2007).
    """
    q = x.copy()
    for j in range(q.shape[1]):
        column = q[:, j] / np.sqrt(ordered_sum(q[:, j] * q[:, j]))
        q[:, j] = column
        shares = ordered_sum(column[:, np.newaxis] * q[:, j + 1 :])
        q[:, j + 1 :] -= column[:, np.newaxis] * shares
    return q
