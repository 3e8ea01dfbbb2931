"""What a probe would answer and how long it would take: from the logs, else from a fit to them.

Only for simulations of the driver (scaling.py): no drawn value goes into any result.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from training.probe import Outcome, Probe
from training.spec import Architecture
from visualizations.results import load_probes, select

FEWEST_ROWS = 8  # of a configuration that has a fit of its own
WIDTH = 0.1  # of log2(threshold): what few rows leave open is taken to be near that
WIDTH_SPREAD = 0.5  # of the logarithm of the width


@dataclass(frozen=True)
class Fit:
    """Verdicts and seconds of a configuration over the number of sequences n.

    P(memorized) = 1 / (1 + exp((log2 n - middle) / width)); log(seconds) is normal around
    ``time[0] + time[1] * log n + time[2] * memorized`` with the standard deviation ``noise``.
    """

    middle: float
    width: float
    time: tuple[float, float, float]
    noise: float

    def draw(self, n: int, random_numbers: random.Random) -> tuple[bool, float]:
        """Return a verdict and seconds for ``n`` sequences."""
        exponent = min(700.0, (math.log2(n) - self.middle) / self.width)
        memorized = random_numbers.random() < 1 / (1 + math.exp(exponent))
        level = self.time[0] + self.time[1] * math.log(n) + self.time[2] * memorized
        return memorized, math.exp(random_numbers.gauss(level, self.noise))


def fit(rows: pd.DataFrame) -> Fit:
    """Return the fit to a configuration's rows, which have both verdicts.

    Of the verdicts the posterior's maximum, with a normal prior for the logarithm of the width;
    of the logarithms of the seconds least squares.
    """
    sizes = np.log2(rows["n"].to_numpy(float))
    memorized = rows["memorized"].to_numpy(bool)

    def loss(values: np.ndarray) -> float:
        exponents = (sizes - values[0]) / math.exp(values[1])
        likelihood = np.logaddexp(0, np.where(memorized, exponents, -exponents)).sum()
        return likelihood + ((values[1] - math.log(WIDTH)) / WIDTH_SPREAD) ** 2 / 2

    start = [(sizes[memorized].max() + sizes[~memorized].min()) / 2, math.log(WIDTH)]
    middle, log_width = minimize(loss, start, method="Nelder-Mead").x
    terms = np.column_stack([np.ones(len(rows)), sizes * math.log(2), memorized])
    seconds = np.log(rows["seconds"].to_numpy(float))
    time, *_ = np.linalg.lstsq(terms, seconds, rcond=None)
    noise = (seconds - terms @ time).std(ddof=terms.shape[1])
    return Fit(middle, math.exp(log_width), tuple(time), noise)


class LoggedProbes:
    """Answers for the probes of ``architectures``, all of the published protocol.

    One without enough rows has the fit of the nearest that has: of the same model and heads, by
    hidden size and layers. The same ``seed`` and probe give the same answer.
    """

    def __init__(self, folder: Path, architectures: Sequence[Architecture], seed: int = 0) -> None:
        rows = select(load_probes(folder))
        self._seed = seed
        self._logged: dict[tuple, tuple[bool, float]] = {}
        self._answers: dict[Probe, Outcome] = {}
        fits: dict[Architecture, Fit] = {}
        for architecture in dict.fromkeys(architectures):
            own = rows[rows["model"] == architecture.spec.name]
            for column, value in architecture.columns().items():
                own = own[own[column] == value]
            for row in own[own["seed"] == 0].itertuples():
                key = architecture, int(row.repeat), int(row.n)
                self._logged[key] = bool(row.memorized), float(row.seconds)
            if len(own) >= FEWEST_ROWS and own["memorized"].nunique() == 2:
                fits[architecture] = fit(own)
        self.borrowed = [a for a in dict.fromkeys(architectures) if a not in fits]
        self._fits = {**fits, **{a: fits[_nearest(a, fits)] for a in self.borrowed}}

    @property
    def logged_rows(self) -> int:
        """How many probes have a logged answer."""
        return len(self._logged)

    def is_logged(self, probe: Probe) -> bool:
        """Return whether the answer is a logged one; else it is drawn."""
        return (probe.architecture, probe.repeat, probe.n) in self._logged

    def answer(self, probe: Probe) -> Outcome:
        """Return the outcome of ``probe``; its loss is no number."""
        known = self._answers.get(probe)
        if known is None:
            known = self._answers[probe] = self._new_answer(probe)
        return known

    def _new_answer(self, probe: Probe) -> Outcome:
        found = self._logged.get((probe.architecture, probe.repeat, probe.n))
        if found is None:
            name = f"{self._seed} {probe.architecture} {probe.repeat} {probe.n}"
            found = self._fits[probe.architecture].draw(probe.n, random.Random(name))
        memorized, seconds = found
        reason = "perfect" if memorized else "max_epochs"
        return Outcome(memorized, float(memorized), math.nan, 1, reason, seconds)


def _nearest(architecture: Architecture, others: dict[Architecture, Fit]) -> Architecture:
    def distance(other: Architecture) -> tuple:
        mine, theirs = architecture.columns(), other.columns()
        return (
            other.spec is not architecture.spec,
            mine.get("num_heads") != theirs.get("num_heads"),
            abs(math.log(mine["hidden_size"] or 1) - math.log(theirs["hidden_size"] or 1)),
            abs(mine["num_layers"] - theirs["num_layers"]),
        )

    return min(others, key=distance)
