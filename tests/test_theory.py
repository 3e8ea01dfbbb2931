"""The numbers of docs/theory.md: computed again, or taken from the results."""

import math
import re

import numpy as np
import pandas as pd
import pytest
from scripts import ROOT

from engines.engine import LinearProgramEngine
from engines.linear_program import SMALLEST_MARGIN
from mlp_experiments.mlp_utils import SPEC, MLPArchitecture
from training.probe import Probe

V, T = 10, 10
SEQUENCES = V**T
TEXT = " ".join((ROOT / "docs" / "theory.md").read_text().split())
DEPTH_0 = pd.read_csv(ROOT / "results" / "depth0" / "mlp_results.csv")
MAIN = pd.read_csv(ROOT / "results" / "mlp_results.csv").query("protocol == 'paper'")


def label_bits(n):
    """log2 of the number of sets of distinct labels that are no inputs."""
    return math.fsum(math.log2(SEQUENCES - n - i) for i in range(n))


def log2_factorial(n):
    return math.lgamma(n + 1) / math.log(2)


def mean_of(rows, column="first_failure"):
    assert len(rows) >= 5 and set(rows["repeat"]) == set(range(len(rows)))
    return rows[column].mean()


def trained():
    rows = MAIN[(MAIN["num_layers"] == 0) & (MAIN["protocol"] == "paper")]
    return mean_of(rows[rows["budget"] == 10_000])


def of_protocol(word):
    return mean_of(DEPTH_0[DEPTH_0["protocol"].str.contains(word, regex=False)])


def distance_to_cone(z):
    """Squared distances of z (m, V) to where the first coordinate is the largest, (m,).

    The nearest point levels the first coordinate with those above it, at their common mean: the
    largest mean of the first and any number of the largest others.
    """
    others = -np.sort(-z[:, 1:])
    sums = np.cumsum(np.column_stack([z[:, 0], others]), axis=1)
    level = (sums / np.arange(1, z.shape[1] + 1)).max(axis=1)
    above = np.maximum(others - level[:, None], 0)
    return (z[:, 0] - level) ** 2 + (above**2).sum(axis=1)


def test_the_bits_of_mappings():
    per_mapping = T * math.log2(V)
    assert f"{per_mapping:.2f} \\text{{ for each mapping" in TEXT
    n = 3_400  # about our largest threshold of one hidden layer
    assert MAIN[MAIN["num_parameters"] == 89947]["first_failure"].mean() == pytest.approx(
        n, rel=0.05
    )
    excess = n * per_mapping - label_bits(n)
    assert excess == pytest.approx(1.5 * n**2 / SEQUENCES * math.log2(math.e), rel=1e-3)
    assert f"At `N` = {n:,} that is {excess:.4f} of {n * per_mapping:,.0f} bits" in TEXT
    n = 540
    assert MAIN[MAIN["num_parameters"] == 9949]["first_failure"].mean() == pytest.approx(
        n, rel=0.05
    )
    assert f"at `N` = {n} {log2_factorial(n):,.0f} of {n * per_mapping:,.0f}." in TEXT
    inputs = math.fsum(math.log2(SEQUENCES - i) for i in range(n)) - log2_factorial(n)
    assert f"bits more, {inputs:,.0f} at this size" in TEXT


def test_the_bound_of_a_network():
    assert f"the bound is {32 / (T * math.log2(V)):.2f} mappings per parameter" in TEXT
    assert f"(49 units: by {log2_factorial(49) / 9949:.2f} bits per parameter)" in TEXT


def test_the_dimensions_of_one_hot_inputs():
    tokens = np.random.default_rng(0).integers(V, size=(1000, T))
    rank = np.linalg.matrix_rank(np.eye(V)[tokens].reshape(1000, -1))
    free = rank * (V - 1)
    assert f"on {V * T} one-hot features" in TEXT
    assert f"$d = T(V-1) + 1 = {rank}$" in TEXT
    assert f"${rank} \\cdot {V - 1} = {free}$ free weights per position" in TEXT
    assert f"{T * free:,} of the {(V * T) ** 2 + V * T:,} parameters" in TEXT
    assert f"$N = 5 \\cdot 2 \\cdot {rank} = {10 * rank}$" in TEXT


def test_the_limit_of_separability():
    random = np.random.default_rng(0)
    ratios = {
        v: (v - 1) / distance_to_cone(random.standard_normal((1_000_000, v))).mean() for v in (2, V)
    }
    assert ratios[2] == pytest.approx(2, rel=0.01)
    assert ratios[V] == pytest.approx(4.51, rel=0.004)
    assert "=\\; 2 \\text{ for } V = 2, \\qquad 4.51 \\text{ for } V = 10" in TEXT
    bits = 4.51 * math.log2(V) / (V - 1)
    assert f"$91 \\cdot 4.51 = {91 * 4.51:.0f}$ mappings for one position" in TEXT
    assert f"{bits:.2f} bits per free weight" in TEXT and f"{bits:.2f} per free weight" in TEXT


def test_the_distance_is_that_of_a_projection():
    from scipy.optimize import minimize

    for z in np.random.default_rng(1).standard_normal((5, 4)):
        # The cone: the first coordinate is the others' maximum plus something.
        def distance(u, z=z):
            return ((np.append(u[1:].max() + abs(u[0]), u[1:]) - z) ** 2).sum()

        options = {"maxiter": 20_000, "maxfev": 20_000, "xatol": 1e-10, "fatol": 1e-12}
        found = minimize(distance, np.append(0.1, z[1:]), method="Nelder-Mead", options=options)
        assert distance_to_cone(z[None])[0] == pytest.approx(found.fun, abs=1e-3)


def test_what_the_linear_model_holds():
    limit, converged = of_protocol("engine=linear-program"), of_protocol("max_epochs=5000")
    assert trained() < converged < limit
    said = re.search(r"fail first at (\d+) mappings on average, (\d+) % of the 410", TEXT)
    assert said and (said[1], said[2]) == (f"{limit:.0f}", f"{100 * limit / 410:.0f}")
    assert (
        f"the published protocol reaches {100 * trained() / limit:.0f} % of that, `converged` "
        f"{100 * converged / limit:.0f} %"
    ) in TEXT


def test_the_margin_is_the_one_of_the_code():
    assert f"A margin above $10^{{{math.log10(SMALLEST_MARGIN):.0f}}}$ is shown" in TEXT


def test_no_probe_was_trained_beyond_the_program():
    """The same mappings: what a trained model memorized, the program calls separable."""
    probes = pd.read_csv(ROOT / "results" / "depth0" / "mlp_probes.csv")
    main = pd.read_csv(ROOT / "results" / "mlp_probes.csv")
    both = pd.concat([probes, main[main["num_layers"] == 0]])
    solved = both["protocol"].str.contains("linear-program")
    keys = ["seed", "repeat", "n"]
    pairs = both[~solved].merge(both[solved], on=keys, suffixes=("_trained", "_solved"))
    assert len(pairs) >= 100
    assert not (pairs["memorized_trained"] & ~pairs["memorized_solved"]).any()


def test_committed_programs_solved_again():
    rows = pd.read_csv(ROOT / "results" / "depth0" / "mlp_probes.csv")
    rows = rows[rows["protocol"].str.contains("linear-program") & (rows["seconds"] < 20)]
    cheap = [*rows[rows["memorized"]].sample(4, random_state=0).to_dict("records")]
    cheap += rows[~rows["memorized"]].sample(1, random_state=0).to_dict("records")
    for row in cheap:
        probe = Probe(MLPArchitecture(0, 0), SPEC.paper, row["seed"], row["repeat"], row["n"])
        [(outcome, _)] = LinearProgramEngine().train([probe])
        for column in ("memorized", "epochs", "stop_reason"):
            assert getattr(outcome, column) == row[column], row
