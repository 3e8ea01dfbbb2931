"""The bar of a running search."""

from __future__ import annotations

import time
from collections.abc import Sequence

from threshold_search.questions.searches import Search, SearchState

SECONDS = 0.2  # between two looks at all searches, of which there may be thousands


class Progress:
    """A bar over ``searches``, each counted by the share of its probes that is done.

    It draws nothing where stderr is not a terminal.
    """

    def __init__(self, searches: Sequence[Search]) -> None:
        from tqdm import tqdm

        noun = searches[0].noun if searches else Search.noun
        # What matters most comes first: a narrow terminal cuts the line off at its end.
        bar = f"{{bar:8}}| {{n:.1f}}/{{total}} {noun}, {{remaining}} left{{desc}}"
        self._bar = tqdm(
            total=len(searches),
            bar_format=bar,
            dynamic_ncols=True,
            miniters=0,
            smoothing=0,  # the mean rate: shares come in jumps, which a short memory misjudges
            disable=None,
        )
        self._started = False
        self._next = 0.0  # time of the next look
        self._states: Sequence[SearchState] = ()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._move(self._states)
        self._bar.close()

    def show(self, states: Sequence[SearchState]) -> None:
        """Move the bar to where ``states`` are and say where those that wait stand."""
        self._states = states
        if time.monotonic() >= self._next:
            self._move(states)
            self._next = time.monotonic() + SECONDS

    def _move(self, states: Sequence[SearchState]) -> None:
        if self._bar.disable:
            return
        done = sum(state.fraction for state in states)
        if not self._started:  # what the log had already says nothing about the rate
            self._bar.initial = self._bar.n = done
            self._started = True
        waiting = [where(state) for state in states if state.is_waiting]
        self._bar.set_description_str("".join(f" | {text}" for text in waiting[:2]), refresh=False)
        self._bar.update(done - self._bar.n)


def where(state: SearchState) -> str:
    """Return configuration, repeat, bounds so far and present size of a search that waits."""
    probe = state.probe
    name = f"{probe.architecture.spec.name} {probe.architecture.name} #{probe.repeat}"
    return f"{name}: {state.bounds_so_far}now {probe.n}"
