"""Which searches a budget and the values of flags mean."""

from pathlib import Path

import pandas as pd
import pytest

from threshold_search.models import MODELS
from threshold_search.plan import (
    configurations,
    label_notes,
    published_configurations,
    searches,
)
from training.errors import UserError

PUBLISHED = pd.read_csv(Path(__file__).parent.parent / "study" / "published_tables.csv")


def configured(model=None, params=None, paper=False, **given):
    specs = [MODELS[model]] if model else MODELS.values()
    if paper:
        return [row for s in specs for row in published_configurations(s, s.paper, given)]
    (spec,) = specs
    return configurations(spec, spec.paper, params, given)


def planned(repeats=2, **flags):
    return searches(configured(**flags), repeats)


def test_paper_is_the_69_published_rows():
    found = planned(paper=True)
    assert len(found) == 2 * 69
    sizes = sorted(s.architecture.num_parameters for s in found if s.repeat == 0)
    assert sizes == sorted(PUBLISHED.true_parameters)


@pytest.mark.parametrize(
    ("flags", "chosen"),
    [
        ({"layers": [0]}, PUBLISHED.num_layers == 0),
        ({"layers": [1, 4]}, PUBLISHED.num_layers.isin([1, 4])),
        ({"heads": [16, 64]}, PUBLISHED.num_heads.isin([16, 64])),
        (
            {"model": "transformer", "layers": [2]},
            (PUBLISHED.num_layers == 2) & (PUBLISHED.table > 3),
        ),
    ],
)
def test_paper_narrowed_to_published_rows(flags, chosen):
    found = [s for s in planned(paper=True, **flags) if s.repeat == 0]
    sizes = sorted(s.architecture.num_parameters for s in found)
    assert sizes == sorted(PUBLISHED[chosen].true_parameters)


def test_a_budget_alone_is_every_published_depth_and_head():
    assert len(planned(model="mlp", params=30_000, repeats=1)) == 6
    assert len(planned(model="transformer", params=64_000, repeats=1)) == 18
    assert len(planned(model="transformer", params=50_000, layers=[1], repeats=1)) == 4


def test_a_fixed_width_is_every_published_depth_that_has_one():
    found = configured(model="mlp", hidden_size=[5, 6])
    shapes = [(a.hidden_size, a.num_layers, budget == a.num_parameters) for a, _, budget in found]
    assert shapes == [(h, depth, True) for depth in (1, 2, 3, 4, 5) for h in (5, 6)]
    with pytest.raises(UserError, match="no --hidden-size"):
        configured(model="mlp", hidden_size=[5], layers=[0])


def test_searches_are_the_repeats_without_duplicates():
    twice = [*configured(model="mlp", params=30_000), *configured(model="mlp", params=30_000)]
    found = searches(twice, repeats=3, seed=4, attempt=1, max_size=20)
    assert len(found) == len(set(found)) == 18
    assert {(s.repeat, s.seed, s.attempt, s.limit) for s in found} == {
        (repeat, 4, 1, 20) for repeat in range(3)
    }


def test_labels_that_are_not_true_counts_are_named_once():
    assert len(label_notes(configured(model="transformer", params=32_000))) == 1
    exact = configured(model="transformer", params=32_000, exact_params=[True])
    assert label_notes(exact) == []
    assert label_notes(configured(model="mlp", params=30_000)) == []
