"""What docs/replication.md says of single settings and unlucky probes, against the CSVs."""

import functools
import re

import numpy as np
import pandas as pd
import scipy.stats
from documents import table_of
from scripts import ROOT

from study import claims
from study.ablations import ABLATED, combinations, numbers, searched_with
from visualizations.markdown import number

table = functools.partial(table_of, "docs/replication.md")
MLP = pd.read_csv(ROOT / "results" / "mlp_results.csv").query("protocol == 'paper'")
PUBLISHED = pd.read_csv(ROOT / "study" / "published_tables.csv")


def sizes(budget, depth):
    return MLP.query("budget == @budget and num_layers == @depth")["first_failure"].to_numpy()


def converged(depth):
    """First failing sizes at the budget of 10,000 by `converged`, from the CSV alone."""
    rows = pd.read_csv(ROOT / "results" / "mlp_results.csv").query(
        "budget == 10000 and num_layers == @depth and protocol.str.contains('max_epochs=5000')"
    )
    return rows["first_failure"].to_numpy()


def test_what_the_verdicts_call_an_artefact_is_one():
    remarked = [row[:2] for row in table("verdicts") if "artefact of the protocol" in row[-1]]
    of_mlps = [["C1", "mlp"], ["C2 collapse", "mlp"]]
    assert remarked == [*of_mlps, ["C8 published sizes", "transformer"]]
    (beside,) = (row for row in table("other-protocols") if row[0].endswith("d = 64, 32 heads"))
    assert float(beside[-1].removeprefix("at most ")) < claims.FAR_MORE
    assert scipy.stats.ttest_ind(converged(2), converged(1), alternative="greater").pvalue < 0.001
    for depth in claims.DEEP:
        assert min(converged(depth)) > claims.COLLAPSED * max(converged(1))
        assert np.mean(sizes(10_000, depth)) < 0.2 * np.mean(sizes(10_000, 1))


def test_the_table_of_single_changes_is_the_log():
    log = pd.read_csv(ROOT / "results" / "mlp_results.csv")
    rows = [row for row in table("ablation-alone") if row[0].startswith("mlp 33 x 4")]
    protocols = ["paper", "paper patience=0", "paper learning_rate=0.003"]
    for protocol, row in zip(protocols, rows, strict=False):
        own = log[(log["num_layers"] == 4) & (log["hidden_size"] == 33)]
        own = own[own["repeat"] < 5]  # those that were searched with every change
        sizes = own.loc[own["protocol"] == protocol, "first_failure"]
        assert row[2] == f"{sizes.mean():,.1f} ± {sizes.std():,.1f} ({len(sizes)})"


def test_a_factorial_design_has_every_combination():
    for ablated in ABLATED:
        if ablated.factorial:
            labels = {ablated.label(changed) for changed in combinations(ablated)}
            assert len(labels) == 2 ** len(ablated.factors)


def test_the_ratios_of_a_factorial_design_are_those_of_paired_searches():
    log = pd.read_csv(ROOT / "results" / "mlp_results.csv").query("hidden_size == 33")
    log = log[~log["protocol"].str.contains("max_epochs=5000")]
    log = log.assign(
        changed=log["protocol"].str.contains("patience=0"),
        others=log["protocol"].str.replace(" patience=0", ""),
        log=np.log(log["first_failure"]),
    )
    assert log["others"].nunique() == 16
    by_repeat = log.groupby(["repeat", "changed"])["log"].mean().unstack()
    effects = (by_repeat[True] - by_repeat[False]).dropna()  # repeats with every combination
    test = scipy.stats.ttest_1samp(effects, 0)
    low, high = np.exp(test.confidence_interval())
    rows = [row for row in table("ablation-factorial") if row[0] == "mlp 33 x 4"]
    (row,) = (row for row in rows if "--patience" in row[1])
    assert row[2] == f"{number(np.exp(effects.mean()))} ({number(low)} to {number(high)})"
    assert row[3] == f"{number(np.exp(effects.min()))} to {number(np.exp(effects.max()))}"
    assert np.sum(effects > np.log(5)) == 1  # the one repeat of which the document speaks


def test_what_is_said_of_single_changes():
    means = {
        tuple(row[:2]): float(row[2].removeprefix("at least ").replace(",", "").split()[0])
        for row in table("ablation-alone")
    }
    three, five = (
        {change: mean for (name, change), mean in means.items() if name == row}
        for row in ("mlp 36 x 3", "mlp 30 x 5")
    )
    stop = "`--patience 0`"
    assert min(three["`--learning-rate 0.003`"], three["`--batch-size 1024`"]) > three[stop]
    assert five["`--init orthogonal`"] > five[stop]
    assert five["`--batch-size 1024`"] == five["published protocol"] < 32
    four = {change: mean for (name, change), mean in means.items() if name == "mlp 33 x 4"}
    assert four["all of these"] > four["`--protocol converged`"]
    log = pd.read_csv(ROOT / "results" / "transformer_results.csv")
    effects = {row[1]: float(row[2].split()[0]) for row in table("ablation-factorial")[5:10]}
    assert 3.5 < effects["`--dropout 0`"] < 4.5
    assert sorted(effects, key=effects.get)[2:] == [
        "`--patience 0`",
        "`--learning-rate 0.002`",
        "`--dropout 0`",
    ]
    narrow = {change: m for (name, change), m in means.items() if name.endswith("32 x 1, 4 heads")}
    assert narrow["`--patience 0`"] == narrow["published protocol"]
    best = log[log["protocol"] == "paper learning_rate=0.002 patience=0 dropout=0.0"]
    assert best["first_failure"].min() > 2 * narrow["all of these"]
    log = log[log["protocol"].str.startswith("paper patience=0 dropout=0.0")]
    held = log.groupby(["hidden_size", "num_heads"])["threshold"].mean()
    for size, heads in ((32, 4), (64, 32)):
        published = means[f"transformer {size} x 1, {heads} heads", "published protocol"]
        assert held[size, heads] > 8 * published  # "more than eight times as much"


def test_other_protocols_take_most_of_the_factor_of_mlps_over_transformers():
    log = {m: pd.read_csv(ROOT / "results" / f"{m}_results.csv") for m in ("mlp", "transformer")}
    mlp = log["mlp"].query("num_layers == 1")
    transformer = log["transformer"].query("num_layers == 1 and repeat < 3")
    changes = {
        "`--patience 0 --dropout 0`": ("paper patience=0", "paper patience=0 dropout=0.0"),
        "`--protocol converged`": ("paper weight_decay=0.0",) * 2,
    }

    def logs(table, protocol):
        found = table[table["protocol"].str.fullmatch(f"{protocol}( max_size.*)?")]
        if protocol.endswith("weight_decay=0.0"):
            found = table[table["protocol"].str.startswith(protocol)]
        return np.log(found["threshold"] + 1)

    rows = table("other-protocols")
    assert len(rows) >= 4
    for part, _, ours, changed, _, of_transformer, ratio in rows:
        budget, d, heads = map(int, re.findall(r"\d+", part.replace(",", "")))
        protocols = changes[changed]
        above = logs(mlp[mlp["budget"] == budget], protocols[0])
        is_it = (transformer["hidden_size"] == d) & (transformer["num_heads"] == heads)
        is_it &= transformer["d_ff"] == {32: 380, 64: 768}[d]
        below = logs(transformer[is_it], protocols[1])
        assert ratio.removeprefix("at most ").split()[0] == number(
            np.exp(above.mean() - below.mean())
        )
        assert ratio.startswith("at most ") == ("at least" in of_transformer)
        is_most_gone = (
            float(ratio.removeprefix("at most ").split()[0]) < float(ours.split()[0]) ** 0.5
        )
        assert is_most_gone == (heads > 1)


def test_what_is_said_of_unlucky_probes():
    shares = {(row[0], row[2]): float(row[4].split()[0]) for row in table("unlucky")}
    assert shares["mlp, no hidden layer", "224"] == 1
    assert shares["transformer 64 x 1, 16 heads", "31"] == 1
    assert shares["mlp 41 x 2", "417"] == 0 and 0.7 < shares["mlp 41 x 2", "416"] < 0.9
    assert max(shares["mlp 149 x 1", "1,727"], shares["mlp 447 x 1", "3,647"]) < 0.25
    every = pd.read_csv(ROOT / "results" / "mlp_results.csv").query("protocol == 'paper'")
    first = every.drop_duplicates(["num_parameters", "num_layers", "repeat"])["first_failure"]
    assert (first[first > 64] % 32).isin([0, 1]).mean() > 0.4  # 1 in 16 by chance
    assert (PUBLISHED["mean_threshold"] % 32).isin([0, 1]).sum() > 3 * len(PUBLISHED) / 16
    assert sizes(10_000, 2).min() <= 417 <= 441 <= sizes(10_000, 2).max()
    log = pd.read_csv(ROOT / "results" / "mlp_probes.csv").query("protocol == 'paper'")
    near = log[log["hidden_size"].isin([41, 49]) & log["n"].between(400, 600)]
    rest = near["n"] % 32
    just_beyond = near.loc[rest.between(1, 4), "memorized"].mean()
    assert just_beyond < 0.05 and near.loc[rest == 0, "memorized"].mean() > 10 * just_beyond


def test_searches_up_to_a_size_are_a_lower_bound_where_there_are_no_others():
    def search(repeat, limit=None, **more):
        protocol = "paper patience=0" + (f" max_size={limit}" if limit else "")
        found = {"seed": 0, "repeat": repeat, "first_failure": float(limit or 8) + 1}
        return {"protocol": protocol, **found, "capped": bool(limit), "model": "mlp", **more}

    rows = [search(0), search(0, 4), search(1, 2), search(1, 4)]
    other = search(2, 4, protocol="paper patience=0 dropout=0.5 max_size=4")
    every = pd.DataFrame([*rows, other])
    assert searched_with(every, "paper patience=0").equals(every.iloc[[0, 3]])
    assert numbers(searched_with(every, "paper patience=0")) == ["at least 7 (2)", "-"]
