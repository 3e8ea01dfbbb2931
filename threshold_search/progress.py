"""The bar of running questions."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

from threshold_search.questions.question import Question, State

SECONDS = 0.2  # between two looks at all questions, of which there may be thousands


class Progress:
    """A bar over ``questions``, each counted by the share of its probes that is done.

    It draws nothing where stderr is not a terminal.
    """

    def __init__(self, questions: Sequence[Question]) -> None:
        from tqdm import tqdm

        noun = questions[0].noun if questions else "questions"
        # What matters most comes first: a narrow terminal cuts the line off at its end.
        bar = f"{{bar:8}}| {{n:.1f}}/{{total}} {noun}, {{remaining}} left{{desc}}"
        self._bar = tqdm(
            total=len(questions),
            bar_format=bar,
            dynamic_ncols=True,
            miniters=0,
            smoothing=0,  # the mean rate: shares come in jumps, which a short memory misjudges
            disable=None,
        )
        self._next = 0.0  # time of the next look
        self._states: Sequence[State] | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._move(self._states or ())
        self._bar.close()

    def show(self, states: Sequence[State]) -> None:
        """Move the bar to where ``states`` are and say where those that wait stand."""
        if self._states is None:  # what the log had already says nothing about the rate
            self._bar.initial = self._bar.n = sum(state.fraction for state in states)
        self._states = states
        if time.monotonic() >= self._next:
            self._move(states)
            self._next = time.monotonic() + SECONDS

    def _move(self, states: Sequence[State]) -> None:
        if self._bar.disable:
            return
        waiting = itertools.islice((state for state in states if state.is_waiting), 2)
        text = "".join(f" | {where(state)}" for state in waiting)
        self._bar.set_description_str(text, refresh=False)
        self._bar.update(sum(state.fraction for state in states) - self._bar.n)


def where(state: State) -> str:
    """Return the name of a question that waits, what it knows, and what it asks now."""
    return f"{' '.join(filter(None, [state.question.name, state.question.part]))}: {state.where}"
