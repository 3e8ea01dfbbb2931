"""A single probe, asked for by itself: does the network memorize exactly n sequences?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from threshold_search.questions.question import Question, State
from training.errors import UserError
from training.probe import Probe


@dataclass(frozen=True, kw_only=True)
class Trial(Question):
    """One ``repeat`` of ``n`` sequences: it finds no threshold and has no row of results.

    Raises :class:`UserError` for more sequences than the task has.
    """

    repeat: int
    n: int

    noun: ClassVar[str] = "probes"

    def __post_init__(self) -> None:
        """Refuse a size that does not exist."""
        super().__post_init__()
        if self.n > self.largest:
            largest = self.largest
            raise UserError(f"--num-sequences must be at most {largest}, all that the task has")

    @property
    def part(self) -> str:
        """Its repeat."""
        return f"#{self.repeat}"

    def start(self) -> TrialState:
        """Return the trial before its probe."""
        return TrialState(self)


class TrialState(State):
    """A trial, which ends with its only outcome."""

    def __init__(self, trial: Trial) -> None:
        super().__init__(trial)
        self._round = (trial.probe(trial.n, trial.repeat),)

    def wanted(self) -> Sequence[Probe]:
        """Return its probe, once."""
        return () if self.taken else self._round

    @property
    def remaining(self) -> float:
        """One probe, or none."""
        return float(len(self.wanted()))

    @property
    def where(self) -> str:
        """Say its size."""
        return f"now {self._round[0].n}"
