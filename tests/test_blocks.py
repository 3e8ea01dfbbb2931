"""The claims with a repeat as one observation, from the CSVs by other means."""

import math

import numpy as np
import pandas as pd
import scipy.stats
from documents import table_of
from scripts import ROOT

from study import assessment, claim_tables, claims
from study.claim_tables import p_text

DECODER_ONLY = pd.read_csv(ROOT / "results" / "decoder-only_results.csv")
DECODER_ONLY = DECODER_ONLY.query("protocol == 'paper'")


def test_repeats_as_observations_say_the_same():
    rows = table_of("docs/replication.md", "blocked")
    assert len(rows) == sum(
        a.claim.quantity == "log" and a.verdict != assessment.OPEN for a in claim_tables._assessed()
    )
    for row in rows:
        p, blocked_p, opposite, blocked_opposite = (float(text.lstrip("< ")) for text in row[3:])
        assert (p < 0.05, opposite < 0.05) == (blocked_p < 0.05, blocked_opposite < 0.05)
    # The smaller of two budgets, by hand: one ratio per repeat, over the matched heads.
    (row,) = (row for row in rows if row[:2] == ["C6", "decoder-only"])
    own = DECODER_ONLY.query("num_layers == 1").assign(log=lambda t: np.log(t["first_failure"]))
    by_budget = own.pivot_table(index=["num_heads", "repeat"], columns="budget", values="log")
    gains = (by_budget[claims.LARGER] - by_budget[claims.SMALLER]).dropna().groupby("repeat").mean()
    expected = scipy.stats.ttest_1samp(gains, math.log(1.25), alternative="less").pvalue
    assert row[2] == str(len(gains)) and row[4] == p_text(expected)
