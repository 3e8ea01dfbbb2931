"""How questions are answered: by what, where, on how many workers. Nothing that decides a result.

Imports no torch.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from os import PathLike

from command_line.flags import DEVICES
from engines.choice import REQUESTS
from threshold_search.executors.executor import DEADLINE_SECONDS, Executor
from threshold_search.executors.local import Workers
from threshold_search.executors.ray_workers import RayWorkers
from training.errors import UserError

EXECUTORS: Mapping[str, Callable[..., Executor]] = {"local": Workers, "ray": RayWorkers}


@dataclass(frozen=True)
class Options:
    """What is the same for all questions of a run.

    ``engine`` is a request of engines/choice.py, ``device`` "auto", "cpu", "cuda" or "mps".
    ``workers`` are processes, by default one per CPU that this one may use, or one in all on a GPU;
    on a cluster that is there already, how many jobs are in flight at most, by default as many as
    it has room for. ``executor`` is "local" or "ray", whose cluster is at ``ray_address``, the one
    that this program is connected to, or one that starts here. A job that takes more than
    ``deadline`` seconds, by default a day, is taken for lost and starts again. ``results_dir`` is
    the folder of logs and results; without one nothing is kept.

    Raises :class:`UserError` for a name or a number that does not exist.
    """

    engine: str = "fast"
    device: str = "auto"
    workers: int | None = None
    executor: str = "local"
    ray_address: str | None = None
    deadline: float = DEADLINE_SECONDS
    results_dir: str | PathLike[str] | None = None

    def __post_init__(self) -> None:
        """Check names and numbers."""
        for name, choices in (("engine", REQUESTS), ("device", DEVICES), ("executor", EXECUTORS)):
            if (value := getattr(self, name)) not in choices:
                raise UserError(f"no {name} {value!r}: there are {', '.join(choices)}")
        if self.workers is not None:
            require_whole("workers", self.workers, 1)
        if not (isinstance(self.deadline, numbers.Real) and self.deadline > 0):
            raise UserError(f"deadline must be more than 0 seconds, got {self.deadline}")
        if self.ray_address is not None and self.executor != "ray":
            raise UserError("--ray-address needs --executor ray")


def require_whole(name: str, value: object, smallest: int) -> None:
    """Raise :class:`UserError` unless ``value`` is a whole number from ``smallest`` on."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < smallest:
        raise UserError(f"{name} must be a whole number, at least {smallest}, got {value!r}")
