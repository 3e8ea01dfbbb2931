"""From a budget and values for a model's flags to the list of searches."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence

from threshold_search.questions.searches import Search
from training.errors import UserError
from training.protocol import Protocol
from training.spec import Architecture, FlagValue, ModelSpec

Values = Mapping[str, Sequence[FlagValue]]  # by flag, those that the user named
Configuration = tuple[Architecture, Protocol, int]  # ..., budget


def configurations(
    spec: ModelSpec, protocol: Protocol, budget: int | None, given: Values
) -> list[Configuration]:
    """Return every combination of the flags' values, in the order of the flags.

    Where the user named no value it is the model's grid, else the flag's default. Raises
    :class:`~training.errors.UserError` for a combination that does not exist.
    """
    defaults = {f.name: [f.default] for f in spec.flags if f.default is not None}
    values: dict[str, Sequence[FlagValue]] = {**defaults, **spec.grid(budget), **given}
    names = [flag.name for flag in spec.flags]
    combinations = itertools.product(*(values.get(name, [None]) for name in names))
    found = []
    for combination in combinations:
        flags = {n: v for n, v in zip(names, combination, strict=True) if v is not None}
        architecture = spec.solve_for(protocol.make_task(), budget, **flags)
        found.append((architecture, protocol, budget or architecture.num_parameters))
    return found


def published_configurations(
    spec: ModelSpec, protocol: Protocol, given: Values
) -> list[Configuration]:
    """Return the published rows of a model, of those only what has one of the ``given`` values."""
    rows = []
    for budget in spec.published_budgets:
        grid = {
            name: [value for value in values if value in given.get(name, values)]
            for name, values in spec.grid(budget).items()
        }
        if set(given) <= set(grid):
            rows += configurations(spec, protocol, budget, grid)
    return rows


def searches(
    configurations: Iterable[Configuration],
    repeats: int = 5,
    seed: int = 0,
    attempt: int = 0,
    max_size: int | None = None,
) -> list[Search]:
    """Return every repeat of every configuration, without duplicates, in their order."""
    found: dict[Search, None] = {}
    for architecture, protocol, budget in configurations:
        limit = protocol.make_task().largest
        if max_size is not None:
            limit = min(limit, max_size)
        for repeat in range(repeats):
            search = Search(
                architecture, protocol, budget, repeat, seed, limit, max_size, attempt=attempt
            )
            found[search] = None
    return list(found)


def shard(searches: Sequence[Search], index: int, count: int) -> list[Search]:
    """Return the ``index``-th part, from 1 on, of ``count`` fixed ones; in their order.

    Every ``count``-th search is in it, so that each part has its share of each configuration.
    Searches that differ in their budget alone train the same probes and stay together. Raises
    :class:`~training.errors.UserError` where there are fewer searches than parts.
    """
    numbers: dict[Search, int] = {}
    for search in searches:
        numbers.setdefault(dataclasses.replace(search, budget=0), len(numbers))
    if len(numbers) < count:
        raise UserError(f"--shard {index}/{count}: there are only {len(numbers)} searches to split")
    return [
        search
        for search in searches
        if numbers[dataclasses.replace(search, budget=0)] % count == index - 1
    ]


def label_notes(configurations: Iterable[Configuration]) -> list[str]:
    """Return one line per model and budget that is a label, not the true count."""
    notes: dict[tuple[str, int], str | None] = {}
    for architecture, _, budget in configurations:
        spec = architecture.spec
        if (spec.name, budget) not in notes:
            notes[spec.name, budget] = spec.label_note(budget, architecture)
    return [note for note in notes.values() if note]
