"""The bar of a running search."""

from __future__ import annotations

from collections.abc import Sequence

from threshold_search.searches import Search, SearchState

TIMES = "[{elapsed}<{remaining}, {rate_fmt}{postfix}]"


class Progress:
    """A bar over ``searches``, each counted by the share of its probes that is done.

    It draws nothing where stderr is not a terminal.
    """

    def __init__(self, searches: Sequence[Search]) -> None:
        from tqdm import tqdm

        noun = searches[0].noun if searches else Search.noun
        bar = f"{{percentage:3.0f}}%|{{bar}}| {{n:.1f}}/{{total}} {noun} {TIMES}"
        self._bar = tqdm(total=len(searches), unit=f" {noun}", bar_format=bar, disable=None)
        self._started = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def show(self, states: Sequence[SearchState]) -> None:
        """Move the bar to where ``states`` are and name the probes being waited for."""
        if self._bar.disable:
            return
        done = sum(state.fraction for state in states)
        if not self._started:  # what the log had already says nothing about the rate
            self._bar.initial = self._bar.n = done
            self._started = True
        waiting = [s.probe for s in states if s.is_waiting]
        names = [f"{p.architecture.name} #{p.repeat} N={p.n}" for p in waiting[:2]]
        self._bar.set_postfix_str(", ".join(names), refresh=False)
        self._bar.update(done - self._bar.n)
