"""From a budget and values for a model's flags to configurations, and from these to questions."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from threshold_search.questions.bisection import Bisection
from threshold_search.questions.question import Configuration, Question
from training.errors import UserError
from training.protocol import Protocol
from training.spec import Architecture, FlagValue, ModelSpec

Values = Mapping[str, Sequence[FlagValue]]  # by flag, those that the user named
Q = TypeVar("Q", bound=Question)


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
) -> list[Bisection]:
    """Return every repeat of every configuration, without duplicates, in their order."""
    found = [
        Bisection(*configuration, seed, attempt, repeat=repeat, max_size=max_size)
        for configuration in configurations
        for repeat in range(repeats)
    ]
    return list(dict.fromkeys(found))


def shard(questions: Sequence[Q], index: int, count: int) -> list[Q]:
    """Return the ``index``-th part, from 1 on, of ``count`` fixed ones; in their order.

    Every ``count``-th question is in it, so that each part has its share of each configuration.
    Those that differ in their budget alone train the same probes and stay together. Raises
    :class:`~training.errors.UserError` where there are fewer questions than parts.
    """
    same = [dataclasses.replace(question, budget=0) for question in questions]
    numbers = {question: number for number, question in enumerate(dict.fromkeys(same))}
    if len(numbers) < count:
        raise UserError(f"--shard {index}/{count}: there are only {len(numbers)} searches to split")
    pairs = zip(questions, same, strict=True)
    return [question for question, key in pairs if numbers[key] % count == index - 1]


def label_notes(configurations: Iterable[Configuration]) -> list[str]:
    """Return one line per model and budget that is a label, not the true count."""
    firsts: dict[tuple[str, int], Architecture] = {}
    for architecture, _, budget in configurations:
        firsts.setdefault((architecture.spec.name, budget), architecture)
    notes = [first.spec.label_note(budget, first) for (_, budget), first in firsts.items()]
    return [note for note in notes if note]
