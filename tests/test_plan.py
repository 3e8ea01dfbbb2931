"""Which searches the flags of the search script mean."""

import argparse
from pathlib import Path

import pandas as pd
import pytest

from mlp_experiments.mlp_utils import SPEC as MLP_SPEC
from threshold_search.plan import label_notes, searches_from
from training.errors import UserError

PUBLISHED = pd.read_csv(Path(__file__).parent.parent / "results" / "published_tables.csv")


def searches(**flags):
    empty = dict.fromkeys(
        [*vars(MLP_SPEC.protocol()), "model", "params", "layers", "heads", "hidden_size", "d_ff"]
    )
    usual = {"paper": False, "exact_params": False, "repeats": 2, "seed": 0, "max_size": None}
    return searches_from(argparse.Namespace(**{**empty, **usual, **flags}))


def test_paper_is_the_69_published_rows():
    found = searches(paper=True)
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
    found = [s for s in searches(paper=True, **flags) if s.repeat == 0]
    sizes = sorted(s.architecture.num_parameters for s in found)
    assert sizes == sorted(PUBLISHED[chosen].true_parameters)


def test_paper_narrowed_to_nothing():
    with pytest.raises(UserError, match="no published row"):
        searches(paper=True, layers=[7])


def test_a_budget_alone_is_every_published_depth_and_head():
    assert len(searches(model="mlp", params=30_000, repeats=1)) == 6
    assert len(searches(model="transformer", params=64_000, repeats=1)) == 18
    assert len(searches(model="transformer", params=50_000, layers=[1], repeats=1)) == 4


def test_labels_that_are_not_true_counts_are_named_once():
    assert len(label_notes(searches(model="transformer", params=32_000))) == 1
    assert label_notes(searches(model="transformer", params=32_000, exact_params=True)) == []
    assert label_notes(searches(model="mlp", params=30_000)) == []
