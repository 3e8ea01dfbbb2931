"""A results folder as the study's tables and figures see it: each part is read once."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from study.assessment import Assessment, assess
from study.comparison import SIZES, Row, every_published_row, rows_of
from training.probe import BITS_VERSION
from visualizations.results import DEFAULT_FOLDER, load_probes, load_results, results_frame, select


class StudyFolder:
    """One results folder, in the current bits version.

    Raises :class:`~training.errors.UserError`, when a part is used, for a folder that does not
    exist, and for a malformed CSV. A folder inside it may be missing: it has no searches then.
    """

    def __init__(self, path: Path | str = DEFAULT_FOLDER, *, is_optional: bool = False) -> None:
        self.path = Path(path).expanduser()
        self._is_missing = is_optional and not self.path.is_dir()

    def inside(self, name: str) -> StudyFolder:
        """Return a folder inside this one, which may be missing."""
        return StudyFolder(self.path / name, is_optional=True)

    @functools.cached_property
    def searches(self) -> pd.DataFrame:
        """The searches of every protocol; sizes that no model of the folder has are NA."""
        found = results_frame([]) if self._is_missing else load_results(self.path)
        missing, at = [n for n in SIZES if n not in found], list(found).index("repeat")
        found = found.reindex(columns=[*found.columns[:at], *missing, *found.columns[at:]])
        found = found.astype(dict.fromkeys(missing, "Int64"))
        return found[found["bits"] == BITS_VERSION]

    @functools.cached_property
    def paper(self) -> pd.DataFrame:
        """Those by the published protocol."""
        return select(self.searches)

    @functools.cached_property
    def probes(self) -> pd.DataFrame | None:
        """The probes by the published protocol, None for a folder that is missing."""
        return None if self._is_missing else select(load_probes(self.path))

    @functools.cached_property
    def rows(self) -> Sequence[Row]:
        """The searches by the published protocol as rows."""
        return rows_of(self.paper)

    @functools.cached_property
    def published_rows(self) -> pd.DataFrame:
        """Every published row beside them."""
        return every_published_row(self.paper)

    @functools.cached_property
    def assessed(self) -> list[Assessment]:
        """Every claim, judged."""
        return assess(self.searches)
