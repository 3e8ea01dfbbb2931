"""Sentences of the documents whose numbers are those of the searches.

study/pages.py writes them. What they say in words is tested in tests/test_readme.py.
"""

from __future__ import annotations

import functools
import textwrap
from collections.abc import Callable, Mapping

import pandas as pd
from scipy.stats import gmean

from mlp_experiments.mlp_utils import SPEC as MLP
from study.comparison import every_configuration, every_published_row, published
from study.other_protocols import DEPTH_0
from training.bits import BITS_VERSION
from transformer_experiments.transformer_utils import SPEC as TRANSFORMER
from visualizations.results import PAPER_PROTOCOL, load_probes, select

WIDTH = 118  # of a line, characters
SMALLEST = 10_000  # parameters: the budget that was searched by both protocols
WIDE = (64, 128)  # d of Tables 5 and 6
MANY_HEADS = {"hidden_size": 64, "num_layers": 1, "num_heads": 32}
NARROW, N = 32, 32  # d of Table 4; a size that every search of it asks for early


def found() -> str:
    """What the searches say, and how far they are, in a paragraph for README.md."""
    deep, deeper = ((_mean(PAPER_PROTOCOL, d), _mean(_converged(), d)) for d in (4, 5))
    rows = every_published_row().dropna(subset=["ours_mean"])
    shallow = rows[(rows["model"] == MLP.name) & rows["num_layers"].isin([1, 2])]
    transformers = rows[rows["model"] == TRANSFORMER.name]
    narrow = transformers[transformers["hidden_size"] == NARROW]
    wide = transformers[transformers["hidden_size"] > NARROW]
    return _filled(
        "**Found.** The published collapse of deep MLPs comes mostly from the training "
        f"protocol: with {SMALLEST:,} parameters in four layers {deep[0]:.0f} sequences become "
        f"{deep[1]:.0f} with longer training (`--protocol converged`), "
        f"in five layers {deeper[0]:.1f} become {deeper[1]:.0f}, and there two layers hold more "
        "than one ([how and why](docs/replication.md)). Under the published protocol our MLP "
        f"thresholds are {_range(shallow['ratio'])} times the published ones with one or two "
        "hidden layers (deeper MLPs differ more, both ways), one hidden layer is best at every "
        f"budget, and thresholds fall with depth after it. More heads raise a transformer's "
        f"threshold, as published. Four times the parameters (d = {WIDE[1]} over {WIDE[0]}) raise "
        f"it {_wider('ours_mean'):.1f} times, published {_wider('published_mean'):.1f}. With d = "
        f"{NARROW} ours are {_range(narrow['ratio'], '.1f')} times the published ones, of wider "
        f"transformers {_range(wide['ratio'], '.1f')} times. {_without_rules()} {_progress()}"
    )


def _without_rules() -> str:
    """What one wide transformer holds without early stop and dropout."""
    rows = _configurations()
    for name, value in {"model": TRANSFORMER.name, **MANY_HEADS}.items():
        rows = rows[rows[name] == value]
    changed = TRANSFORMER.protocol(patience=0, dropout=0.0).label(TRANSFORMER.protocol())
    before = rows[rows["protocol"] == PAPER_PROTOCOL].iloc[0]
    found = rows[rows["protocol"].str.split(" max_size").str[0] == changed]
    after = found.sort_values("capped").iloc[0]  # rather those that came to their end
    at_least = "at least " if after["capped"] else ""
    return (
        f"Without early stop and dropout d = {MANY_HEADS['hidden_size']} with "
        f"{MANY_HEADS['num_heads']} heads goes from {before['ours_mean']:.0f} (published "
        f"{before['published_mean']:g}) to {at_least}{after['ours_mean']:,.0f}."
    )


def tried() -> str:
    """How often the narrowest transformers memorize more than any published mean of theirs."""
    rows = every_published_row()
    narrow = rows[(rows["model"] == TRANSFORMER.name) & (rows["hidden_size"] == NARROW)]
    probes = _published_probes(TRANSFORMER.name)
    asked = probes[(probes["hidden_size"] == NARROW) & (probes["n"] == N)]
    return _filled(
        f"Of the transformers with d = {NARROW} that our searches tried at N = {N}, "
        f"{asked['memorized'].sum()} of {len(asked)} memorized all of it; no published mean of "
        f"theirs exceeds {narrow['published_mean'].max():g}."
    )


def _wider(column: str) -> float:
    """Return the geometric mean ratio of the wider transformers to the others, matched."""
    rows = every_published_row()
    rows = rows[rows["model"] == TRANSFORMER.name]
    table = rows.pivot_table(
        values=column, index=["num_layers", "num_heads"], columns="hidden_size"
    )
    return float(gmean(table[WIDE[1]] / table[WIDE[0]], nan_policy="omit"))


def progress() -> str:
    """Which tables of the paper have been searched, how often, and what that took."""
    return _filled(_progress())


def _progress() -> str:
    rows = every_published_row().assign(table=published()["table"])  # in the same order
    by_text: dict[str, list[int]] = {}
    for number in dict.fromkeys(rows["table"]):
        by_text.setdefault(_progress_of(rows[rows["table"] == number]), []).append(number)
    parts = [text.replace("TABLES", _tables(tables)) for text, tables in by_text.items()]
    probes = pd.concat([_published_probes(model) for model in dict.fromkeys(rows["model"])])
    hours = probes["seconds"].sum() / 3600
    time = f"{60 * hours:.0f} minutes" if hours < 2 else f"{hours:.0f} hours"
    begun = (rows["repeats"] > 0).sum()
    of_rows = f"all {begun}" if begun == len(rows) else f"{begun} of {len(rows)}"
    return (
        f"Repeats per row: {', '.join(parts)}; together {of_rows} rows, "
        f"{rows['repeats'].sum():,} searches, {len(probes):,} trained models, {time} of training."
    )


def linear_shares() -> str:
    """How near training comes to what any weights of the linear model would hold."""
    trained, converged = _mean(PAPER_PROTOCOL, 0), _depth_0("max_epochs")
    limit = _depth_0("linear")
    return _filled(
        f"Any weights fail first at {limit:.0f} mappings on average, {100 * limit / 410:.0f} % of "
        "the 410 that geometry gives one position: closer than the argument could promise. "
        f"Training under the published protocol reaches {100 * trained / limit:.0f} % of that, "
        f"`converged` {100 * converged / limit:.0f} %. The rest is lost in training, not for want "
        "of weights."
    )


def _progress_of(rows: pd.DataFrame) -> str:
    counts = rows.loc[rows["repeats"] > 0, "repeats"]
    if counts.empty:
        return "none in TABLES"
    few, many = counts.min(), counts.max()
    repeats = f"{few}" if few == many else f"{few} to {many}"
    of_rows = "" if len(counts) == len(rows) else f"{len(counts)} of {len(rows)} rows of "
    return f"{repeats} in {of_rows}TABLES"


def _tables(numbers: list[int]) -> str:
    """Return "Table 5", "Tables 1 to 4", "Tables 4 and 5" or "Tables 1 and 3"."""
    if len(numbers) == 1:
        return f"Table {numbers[0]}"
    if len(numbers) > 2 and numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"Tables {numbers[0]} to {numbers[-1]}"
    return f"Tables {' and '.join(map(str, numbers))}"


def _converged() -> str:
    return MLP.protocol("converged").label(MLP.protocol())


@functools.cache
def _configurations() -> pd.DataFrame:
    return every_configuration(bits=BITS_VERSION)


def _mean(protocol: str, depth: int) -> float:
    """Return the mean first failing size of MLPs of the smallest budget."""
    rows = _configurations()
    rows = rows[(rows["model"] == MLP.name) & (rows["budget"] == SMALLEST)]
    rows = rows[(rows["protocol"] == protocol) & (rows["num_layers"] == depth)]
    return float(rows["ours_mean"].item())


def _depth_0(word: str) -> float:
    rows = every_configuration(DEPTH_0, BITS_VERSION)
    return float(rows.loc[rows["protocol"].str.contains(word), "ours_mean"].item())


@functools.cache
def _published_probes(model: str) -> pd.DataFrame:
    """Return the probes of the published shapes of a model, under the published protocol."""
    probes = select(load_probes())
    probes = probes[probes["model"] == model]
    keys = ["num_parameters", "hidden_size", "d_ff", "num_heads", "num_layers"]
    keys = [name for name in keys if probes[name].notna().any()]
    shapes = published()
    shapes = shapes.loc[shapes["model"] == model, keys].drop_duplicates()
    return probes.merge(shapes, on=keys)


def _range(values: pd.Series, form: str = ".2f") -> str:
    return f"{values.min():{form}} to {values.max():{form}}"


def _filled(text: str) -> str:
    whole = text.replace(" = ", "\u00a0=\u00a0")  # no line begins with a sign
    lines = textwrap.fill(whole, WIDTH, break_long_words=False, break_on_hyphens=False)
    return lines.replace("\u00a0", " ") + "\n"


SENTENCES: Mapping[str, Callable[[], str]] = {
    "found": found,
    "progress": progress,
    "tried": tried,
    "linear-shares": linear_shares,
}
