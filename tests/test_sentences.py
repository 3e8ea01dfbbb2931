"""The sentences of README.md and results/README.md that count searches, against the CSVs."""

import re

import numpy as np
import pandas as pd
from documents import PROSE, table_of
from published_rows import PUBLISHED, RESULTS, SHAPE, compared, probes_of

VERDICTS = table_of("docs/replication.md", "verdicts")


def of_table_4(probes):
    """Return the probes of the published shapes of Table 4."""
    table = PUBLISHED[PUBLISHED["table"] == 4]
    return probes.merge(table[SHAPE], on=SHAPE)


def mean_of_depth(protocol):
    """Return the mean first failing size of MLPs of the smallest budget, by depth."""
    rows = pd.read_csv(RESULTS / "mlp_results.csv")
    rows = rows[(rows["budget"] == 10_000) & rows["protocol"].str.fullmatch(f"{protocol}( .*)?")]
    if protocol == "paper":
        rows = rows[rows["protocol"] == "paper"]
    return rows.groupby("num_layers")["first_failure"].mean()


def test_the_findings_are_in_the_results():
    mlp, transformer = compared("mlp"), compared("transformer")
    readme = PROSE["README.md"]
    shallow = mlp[mlp["num_layers"].isin([1, 2])]
    ratios = shallow["ours_mean"] / shallow["mean"]
    assert f"MLP thresholds are {ratios.min():.2f} to {ratios.max():.2f} times" in readme
    paper, converged = (mean_of_depth(label) for label in ("paper", "paper weight_decay=0.0"))
    assert (
        f"in four layers {paper[4]:.0f} sequences become {converged[4]:.0f} with longer training"
    ) in readme
    assert (
        f"in five layers {paper[5]:.1f} become {converged[5]:.0f}, and there two layers" in readme
    )
    assert converged[2] > converged[1]
    assert (
        "one hidden layer is best at every budget, and thresholds fall with depth after" in readme
    )
    for _, rows in mlp.groupby("budget"):
        none, *means = rows.sort_values("num_layers")["ours_mean"]
        assert means == sorted(means, reverse=True)
        assert none < means[0]
    deep = mlp[mlp["num_layers"] > 2]
    ratios_of_deep = deep["ours_mean"] / deep["mean"]
    assert ratios_of_deep.min() < ratios.min() and ratios_of_deep.max() > ratios.max()
    assert "(deeper MLPs differ more, both ways)" in readme
    small = transformer[transformer["hidden_size"] == 32]
    ratios = small["ours_mean"] / small["mean"]
    wide = transformer[transformer["hidden_size"] > 32]
    more = wide["ours_mean"] / wide["mean"]
    assert (
        f"With d = 32 ours are {ratios.min():.1f} to {ratios.max():.1f} times the published ones, "
        f"of wider transformers {more.min():.1f} to {more.max():.1f} times."
    ) in readme
    assert "More heads raise a transformer's threshold, as published. Four times" in readme
    for _, rows in small.groupby("num_layers"):
        means = list(rows.sort_values("num_heads")["ours_mean"])
        assert means == sorted(means)
    logs = np.log(
        transformer.set_index(["hidden_size", "num_layers", "num_heads"])[["ours_mean", "mean"]]
    )
    ours, theirs = np.exp((logs.loc[128] - logs.loc[64]).dropna().mean())
    assert f"(d = 128 over 64) raise it {ours:.1f} times, published {theirs:.1f}." in readme
    for claim, verdict in (("C4", "holds"), ("C6", "does not hold")):
        (row,) = (r for r in VERDICTS if r[:2] == [claim, "transformer"])
        assert row[-1].split(":")[0] == verdict
    probes = of_table_4(probes_of("transformer"))
    probes = probes[probes["n"] == 32]
    assert (
        f"d = 32 that our searches tried at N = 32, {probes['memorized'].sum()} of {len(probes)} "
        f"memorized all of it; no published mean of theirs exceeds {small['mean'].max():g}."
    ) in PROSE["docs/replication.md"]
    log = pd.read_csv(RESULTS / "transformer_results.csv").query("num_heads == 32")
    log = log[(log["hidden_size"] == 64) & (log["num_layers"] == 1)]
    before = log.loc[log["protocol"] == "paper", "first_failure"].mean()
    after = log[log["protocol"].str.startswith("paper patience=0 dropout=0.0")]
    assert after["first_failure"].isna().all()  # they ended at their size limit
    assert (
        f"with 32 heads goes from {before:.0f} (published 77) to at least "
        f"{after['threshold'].mean() + 1:,.0f}."
    ) in readme
    zeros = (PUBLISHED["std"] == 0).sum()
    assert f"{zeros} of {len(PUBLISHED)} standard deviations are 0" in readme


def repeats_said(text):
    """Return the least and most repeats of a row, and the number of rows, of every table begun."""
    said = {}
    for part in re.search(r"Repeats per row: (.*?); together", text)[1].split(", "):
        repeats, rows, tables = re.fullmatch(
            r"(.*) in (?:(\d+) of \d+ rows of )?Tables? (.*)", part
        ).groups()
        numbers = list(map(int, re.findall(r"\d+", tables)))
        if " to " in tables:
            numbers = range(numbers[0], numbers[-1] + 1)
        counts = list(map(int, re.findall(r"\d+", repeats)))
        for table in numbers if counts else ():
            every = (PUBLISHED["table"] == table).sum()
            said[table] = (counts[0], counts[-1], int(rows or every))
    return said


def test_the_counts_are_those_of_the_csvs():
    ours = pd.concat([compared(model) for model in ("mlp", "transformer")])
    shapes = PUBLISHED[[*SHAPE, "true_parameters"]].rename(
        columns={"true_parameters": "num_parameters"}
    )
    probes = [probes_of("mlp"), probes_of("transformer")]
    keys = [["hidden_size", "num_layers", "num_parameters"], [*SHAPE, "num_parameters"]]
    trained = [
        p.merge(shapes[k].drop_duplicates(), on=k) for p, k in zip(probes, keys, strict=True)
    ]
    seconds = sum(rows["seconds"].sum() for rows in trained)
    time = f"{seconds / 3600:.0f} hours" if seconds >= 7200 else f"{seconds / 60:.0f} minutes"
    assert len(ours) == len(PUBLISHED)
    said = (
        f"; together all {len(ours)} rows, {ours['repeats'].sum():,} searches, "
        f"{sum(map(len, trained)):,} trained models, {time} of training."
    )
    for name in ("README.md", "results/README.md"):
        assert said in PROSE[name]
        assert repeats_said(PROSE[name]) == {
            table: (
                rows["repeats"].min(),
                rows["repeats"].max(),
                len(rows),
            )
            for table, rows in ours.groupby("table")
        }
    probes = probes_of("mlp")
    first = probes[(probes["num_parameters"] == 9949) & (probes["repeat"] < 5)]
    assert (
        f"MLP 49 x 1, 5 repeats, {len(first)} models, {first['seconds'].sum():.0f} seconds"
    ) in PROSE["README.md"]
