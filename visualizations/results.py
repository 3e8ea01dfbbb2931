"""The one reader of a results folder: every row of every model as a data frame. No torch.

    searches = load_results("results")
    probes = load_probes("results")

Models need not be registered: the columns between ``num_parameters`` and ``repeat`` are whatever
sizes the file has. What the text in ``protocol`` says is there by name too.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from threshold_search.log import published
from threshold_search.log.layout import layout_of
from threshold_search.log.reader import read_rows
from threshold_search.log.results_folder import DEFAULT_FOLDER
from training.errors import UserError
from training.probe import BITS_VERSION
from training.protocol import LABEL_WORDS, Protocol, parse_label
from training.spec import FIXED_COLUMNS, TASK

PAPER_PROTOCOL = "paper"

Row = Mapping[str, Any]

# Of the columns that every model has, those that are no whole numbers.
_COLUMN_TYPES = {
    **dict.fromkeys(("model", "protocol", "task", "stop_reason"), "str"),
    **dict.fromkeys(("memorized", "max_epoch_reached", "capped"), "bool"),
    **dict.fromkeys(("accuracy", "loss", "seconds"), "float64"),
}
_TYPES = {int: "Int64", float: "float64", str: "str"}


def load_probes(folder: Path | str = DEFAULT_FOLDER) -> pd.DataFrame:
    """Return one row per trained model: every ``*_probes.csv`` of ``folder``, models by name.

    Columns as in the files (results/README.md): identity, task, sizes, outcome. ``n`` is in
    sequences, ``loss`` in nats per token, ``seconds`` in seconds. Every protocol and bits version
    is there. A size that a model lacks is NA; whole numbers are nullable integers (Int64). No rows
    if the folder has no such file. A log merged of several may have a probe more than once, as the
    file.

    Then what ``protocol`` says: a column for every setting, with the published value where the
    label does not name it, and ``attempt``, ``max_size`` (NA: none), ``engine``, ``device`` and
    ``machine`` ("" where the label names none). A setting called as another column, such as one
    named ``loss``, is ``loss_setting``.

    Raises :class:`UserError` for a folder that does not exist and for a malformed file. A last line
    that a crash left unfinished is malformed until the next search drops it.
    """
    rows, papers = _rows(folder, "probes")
    return with_settings(_frame(rows, is_log=True), papers)


def load_results(folder: Path | str = DEFAULT_FOLDER) -> pd.DataFrame:
    """Return one row per finished search: every ``*_results.csv`` of ``folder``, models by name.

    Columns as in the files and ``capped``: whether the search reached its size limit without a
    failure; then the settings; all typed as in :func:`load_probes`. ``threshold`` and
    ``first_failure`` are in sequences; of a capped search ``first_failure`` is ``threshold`` + 1,
    which is then a lower bound.

    Raises :class:`UserError` for a folder that does not exist, a malformed file, a search that is
    there twice, and a ``first_failure`` that is not ``threshold`` + 1.
    """
    rows, papers = _rows(folder, "results")
    return with_settings(results_frame(rows), papers)


def results_frame(rows: Sequence[Row]) -> pd.DataFrame:
    """Return rows of MODEL_results.csv, of any models, with the columns up to ``capped``."""
    completed = []
    for row in rows:
        capped = bool(pd.isna(row["first_failure"]))
        first_failure = row["threshold"] + 1
        completed.append({**row, "first_failure": first_failure, "capped": capped})
    return _frame(completed, is_log=False)


def with_settings(frame: pd.DataFrame, papers: Mapping[str, Protocol]) -> pd.DataFrame:
    """Return ``frame`` with a column for everything that its labels say.

    ``papers`` are the published protocols of models; by default a registered model has its own,
    another one the MLP's.
    """
    labels = {
        key: parse_label(key[1], published.of_model(key[0], papers))
        for key in dict.fromkeys(zip(frame["model"], frame["protocol"], strict=True))
    }
    numbers = {key: number for number, key in enumerate(labels)}
    order = [numbers[key] for key in zip(frame["model"], frame["protocol"], strict=True)]
    columns, taken = {}, FIXED_COLUMNS | {*frame}
    for name, kind in {
        **{f.name: type(f.default) for f in fields(Protocol)},
        **LABEL_WORDS,
    }.items():
        if name in ("task", *TASK):
            continue
        sources = (label if name in LABEL_WORDS else label.protocol for label in labels.values())
        values = pd.Series([getattr(source, name) for source in sources], dtype=_TYPES[kind])
        columns[f"{name}_setting" if name in taken else name] = values.iloc[order]
    settings = pd.DataFrame(columns).set_axis(frame.index)
    return pd.concat([frame, settings], axis="columns")


def configuration_columns(results: pd.DataFrame) -> list[str]:
    """Return the columns that the repeats of a search have in common: those before ``repeat``.

    They are ``model``, ``protocol``, ``bits``, ``budget``, the task, ``num_parameters`` and the
    sizes.
    """
    columns = list(results.columns)
    return columns[: columns.index("repeat")]


def select(
    results: pd.DataFrame, protocol: str = PAPER_PROTOCOL, bits: int = BITS_VERSION
) -> pd.DataFrame:
    """Return the rows of exactly this protocol and bits version, by default the current ones."""
    return results[(results["protocol"] == protocol) & (results["bits"] == bits)]


def _rows(folder: Path | str, kind: str) -> tuple[list[Row], Mapping[str, Protocol]]:
    """Return the rows of every CSV that has a model's name and ``kind``; what paper means there."""
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(f"no results folder {folder}")
    papers = published.recorded(folder)
    rows: list[Row] = []
    for path in sorted(folder.glob(f"?*_{kind}.csv")):
        model = path.name.removesuffix(f"_{kind}.csv")
        paper = published.of_model(model, papers)
        rows += read_rows(path, functools.partial(layout_of, model, paper, kind == "probes"))
    return rows, papers


def _frame(rows: Sequence[Row], is_log: bool) -> pd.DataFrame:
    """Return the rows with typed columns, as a file has them, with the sizes of all models."""
    fixed = [*layout_of("", Protocol(), is_log, ()).columns, *([] if is_log else ["capped"])]
    types = {name: _COLUMN_TYPES.get(name, "Int64") for name in fixed}
    sizes = list(dict.fromkeys(name for row in rows for name in row if name not in fixed))
    before = fixed.index("repeat")
    columns = [*fixed[:before], *sizes, *fixed[before:]]
    # Object columns until each has its type: a NaN among whole numbers would make them floats.
    frame = pd.DataFrame(
        {name: pd.Series([row.get(name) for row in rows], dtype=object) for name in columns}
    )
    for size in sizes:
        values = frame[size].dropna()
        if values.map(lambda value: isinstance(value, int)).all():
            types[size] = "Int64"
        else:
            frame[size] = frame[size].map(str, na_action="ignore").astype("str")
    return frame.astype(types)
