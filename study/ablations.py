"""Which part of the published protocol a threshold is due to: one setting changed, or several.

A factor is a setting with its published value and another one. A factorial design has every
combination of some factors; its effects are told within the combinations of the others.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import gmean, ttest_1samp

from mlp_experiments.mlp_utils import SPEC as MLP
from study.comparison import label_of, name_of, published
from study.effects import Effect
from study.folder import StudyFolder
from threshold_search.models import MODELS
from training.protocol import parse_label
from training.spec import ModelSpec
from transformer_experiments.transformer_utils import SPEC as TRANSFORMER
from visualizations.markdown import markdown, mean_text, number
from visualizations.results import PAPER_PROTOCOL
from visualizations.summary import summarize

Settings = Mapping[str, Any]  # of a protocol, where it is not the published one


@dataclass(frozen=True)
class Ablated:
    """A published row with the changes of its protocol that were searched.

    ``factors`` are the changes of single settings; a ``factorial`` has all their combinations.
    """

    spec: ModelSpec
    where: Mapping[str, int]  # columns of the configuration
    factors: Settings
    factorial: bool = False

    @property
    def name(self) -> str:
        """The configuration in a few words."""
        return name_of({"model": self.spec.name, **self.where})

    def label(self, changed: Settings) -> str:
        """Return what the protocol column says of the published protocol with these changes."""
        return label_of(self.spec, **changed)


_MLP_FACTORS = {
    "patience": 0,
    "learning_rate": 0.003,
    "max_epochs": 2000,
    "batch_size": 1024,
    "init": "orthogonal",
}
_TRANSFORMER_FACTORS = {
    "patience": 0,
    "learning_rate": 0.002,
    "max_epochs": 1000,
    "batch_size": 1024,
    "dropout": 0.0,
}
_REGULARISERS = {"patience": 0, "dropout": 0.0}


def _mlp(width: int, depth: int, **more: Any) -> Ablated:
    return Ablated(MLP, {"hidden_size": width, "num_layers": depth}, **more)


def _transformer(width: int, heads: int, **more: Any) -> Ablated:
    where = {"hidden_size": width, "num_layers": 1, "num_heads": heads}
    return Ablated(TRANSFORMER, where, **more)


ABLATED: Sequence[Ablated] = (
    _mlp(49, 1, factors={}),
    _mlp(41, 2, factors={}),
    _mlp(36, 3, factors=_MLP_FACTORS),
    _mlp(33, 4, factors=_MLP_FACTORS, factorial=True),
    _mlp(30, 5, factors=_MLP_FACTORS),
    _transformer(32, 4, factors=_TRANSFORMER_FACTORS, factorial=True),
    _transformer(64, 1, factors=_REGULARISERS, factorial=True),
    _transformer(64, 32, factors=_REGULARISERS, factorial=True),
)


def alone_table(folder: StudyFolder) -> str:
    """Every ablated row: as published, each change alone, all together, and `converged`.

    As published are the repeats that were searched with a change too, if there are any.
    """
    searches, rows = folder.searches, []
    for ablated in ABLATED:
        changes: list[tuple[str, str]] = [("published protocol", ablated.label({}))]
        changes += [(flag(n, v), ablated.label({n: v})) for n, v in ablated.factors.items()]
        if ablated.factorial:
            changes.append(("all of these", ablated.label(ablated.factors)))
        changes.append(("`--protocol converged`", label_of(ablated.spec, "converged")))
        own = _of(searches, ablated)
        by_label = {label: searched_with(own, label) for _, label in changes}
        changed = pd.concat([f for label, f in by_label.items() if label != PAPER_PROTOCOL])
        if len(changed):  # repeats share data and initial weights
            published_protocol = by_label[PAPER_PROTOCOL]
            pairs = changed[["seed", "repeat"]].drop_duplicates()
            by_label[PAPER_PROTOCOL] = published_protocol.merge(pairs)
        row = _row(ablated)
        for words, label in changes:
            theirs = "-"
            if label == PAPER_PROTOCOL:
                theirs = f"{row['published_mean']:g} ± {row['published_std']:g}"
            if len(found := by_label[label]) or label == PAPER_PROTOCOL:
                rows.append([ablated.name, words, *numbers(found), theirs])
    headings = ["configuration", "changed", "ours, mean ± std (searches)", "95 % interval"]
    return markdown([*headings, "published"], rows)


def factorial_table(folder: StudyFolder) -> str:
    """Of every factorial design that is complete: the factor of each change, over the others."""
    searches, rows = folder.searches, []
    for ablated in ABLATED:
        if not ablated.factorial:
            continue
        cells = {frozenset(c.items()): _sizes(searches, ablated, c) for c in combinations(ablated)}
        repeats = set.intersection(*(set(sizes.index) for sizes in cells.values()))
        if len(repeats) < 2:  # nothing to tell chance from
            continue
        count = len(cells) * len(repeats)  # those that are paired
        for name, value in ablated.factors.items():
            ratios = _ratios(cells, (name, value), sorted(repeats))
            ranges = [gmean(ratios, axis=0), gmean(ratios, axis=1)]  # by repeat, by combination
            texts = [f"{number(min(values))} to {number(max(values))}" for values in ranges]
            known = [ablated.name, flag(name, value), _mean_with_interval(ranges[0])]
            rows.append([*known, *texts, count])
    headings = ["configuration", "changed", "ratio of thresholds (95 % interval)"]
    by = ["in single repeats", "in single combinations of the others"]
    return markdown([*headings, *by, "searches"], rows)


def _ratios(
    cells: Mapping[frozenset, pd.Series], change: tuple[str, Any], repeats: Sequence[int]
) -> np.ndarray:
    """Return by what ``change`` multiplies the threshold, of shape (combinations, repeats).

    ``cells`` are first failing sizes by repeat, of every combination; their searches are paired.
    """
    logs = [
        np.log(cells[without | {change}].loc[list(repeats)] / cells[without].loc[list(repeats)])
        for without in cells
        if change not in without
    ]
    return np.exp(np.array(logs, dtype=float))


def _mean_with_interval(by_repeat: Sequence[float]) -> str:
    """Return the geometric mean over repeats with its 95 % interval, Student's t of logarithms.

    The searches of one repeat share data and initial weights over all cells of a design, so the
    repeats are what is independent: each counts once, as the mean over all other combinations.
    """
    logs = np.log(by_repeat)
    interval = ttest_1samp(logs, 0).confidence_interval()
    return Effect(float(logs.mean()), float(interval.low), float(interval.high)).factor.text


def combinations(ablated: Ablated) -> Iterator[dict[str, Any]]:
    """Yield every combination of the factors: the settings that are not the published ones."""
    for chosen in itertools.product((False, True), repeat=len(ablated.factors)):
        items = zip(ablated.factors.items(), chosen, strict=True)
        yield {name: value for (name, value), is_changed in items if is_changed}


def flag(name: str, value: Any) -> str:
    """Return the flag that makes a change."""
    text = value if isinstance(value, str) else f"{value:g}"
    return f"`--{name.replace('_', '-')} {text}`"


def _of(searches: pd.DataFrame, ablated: Ablated) -> pd.DataFrame:
    where = {"num_parameters": _row(ablated)["num_parameters"], **ablated.where}
    own = _with(searches, {"model": ablated.spec.name, **where})
    return own.drop_duplicates(["protocol", "seed", "repeat"])


def _with(table: pd.DataFrame, where: Mapping[str, object]) -> pd.DataFrame:
    """Return the rows that have the values in ``where``."""
    for name, value in where.items():
        table = table[table[name] == value]
    return table


def searched_with(own: pd.DataFrame, label: str) -> pd.DataFrame:
    """Return the searches by a protocol, of every repeat one.

    That is one that came to its end if there is one, else the one with the largest size limit.
    """
    whole = [
        str(replace(parse_label(text, MODELS[model].paper), max_size=None))
        for model, text in zip(own["model"], own["protocol"], strict=True)
    ]
    found = own[np.array(whole) == label]
    best_first = found.sort_values(["capped", "first_failure"], ascending=[True, False])
    return best_first.drop_duplicates(["seed", "repeat"]).sort_index()


def _row(ablated: Ablated) -> pd.Series:
    """Return the published row of the configuration."""
    return _with(published(), {"model": ablated.spec.name, **ablated.where}).iloc[0]


def _sizes(searches: pd.DataFrame, ablated: Ablated, changed: Settings) -> pd.Series:
    """Return the first failing sizes of one seed, by repeat."""
    own = _of(searches, ablated)
    found = own[(own["protocol"] == ablated.label(changed)) & (own["seed"] == 0)]
    return found.set_index("repeat")["first_failure"].astype(float)


def numbers(found: pd.DataFrame) -> list[str]:
    """Return mean, deviation and number of searches of one configuration, and the interval.

    If one of them ended at its size limit they are a lower bound.
    """
    if not len(found):
        return ["not measured", "-"]
    (row,) = summarize(found, ["model"]).to_dict("records")
    if row["capped"]:
        return [f"at least {row['mean']:,.0f} ({row['n']})", "-"]
    interval = f"{row['low']:,.1f} to {row['high']:,.1f}" if row["n"] > 1 else "-"
    return [mean_text(row["mean"], row["std"], row["n"], digits=1), interval]
