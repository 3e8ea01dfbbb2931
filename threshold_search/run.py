"""Answers a list of questions from end to end: engines, results folder, workers, run record."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from command_line.flags import resolve_device
from command_line.interrupts import import_torch
from engines.choice import choose_engine, fallback_note
from engines.cpu import usable_cpus
from engines.engine import Engine
from engines.native.load import engine_compiler
from threshold_search.driver import drive
from threshold_search.log.results_folder import ResultsFolder
from threshold_search.log.run_record import append_run, describe_run
from threshold_search.options import EXECUTORS, Options
from threshold_search.plan import label_notes
from threshold_search.progress import Progress
from threshold_search.questions.question import Question, Row, State
from training.probe import Kind


@dataclass(frozen=True)
class Finished:
    """What became of a list of questions, in their order."""

    states: list[State]
    rows: list[tuple[Question, Row]]  # of those that ended and have one
    trained: bool  # whether any probe was, or the logs had them all

    @property
    def failures(self) -> str | None:
        """One line that names what could not be finished, and why; None if all was."""
        parts: dict[tuple[str, str], list[str]] = {}
        for state in self.states:
            if state.failure is not None:
                name = state.question.name
                parts.setdefault((name, state.failure), [name]).append(state.question.part)
        lines = [f"{' '.join(dict.fromkeys(said))}: {why}" for (_, why), said in parts.items()]
        return f"not finished: {'; '.join(lines)}" if lines else None


def run_searches(
    questions: Sequence[Question], options: Options, command: str | None = None
) -> Finished:
    """Bring ``questions`` to their ends in the results folder.

    Probes that the folder's logs have are not trained again, and where they have all, torch is not
    even imported. ``command`` is what the run record says started it, by default the process's
    command line. Raises :class:`~training.errors.UserError` for what the user can mend.
    """
    if options.results_dir is not None:
        return _run(questions, options, Path(options.results_dir).expanduser(), command)
    with tempfile.TemporaryDirectory(prefix="thresholds-") as folder:
        return _run(questions, options, Path(folder), command)


def _run(
    questions: Sequence[Question], options: Options, results_dir: Path, command: str | None
) -> Finished:
    device = resolve_device(options.device)
    # Chosen once, so that the workers need not.
    engines: dict[Kind, Engine] = {
        kind: choose_engine(options.engine, device, *kind)
        for kind in dict.fromkeys(question.kind for question in questions)
    }
    for question in questions:  # before anything is written
        engines[question.kind].check(question.probe(1))
    specs = list(dict.fromkeys(architecture.spec for architecture, _ in engines))
    workers = options.workers
    if workers is None and options.executor != "ray":
        workers = _default_workers(device)
    on_cluster = {} if options.ray_address is None else {"address": options.ray_address}
    trained = False

    def before_training() -> None:
        nonlocal trained
        trained = True
        import_torch()  # here, so that a missing or broken one is found before any worker starts
        if note := fallback_note(options.engine, device, engines):
            print(note, file=sys.stderr)
        used: dict[str, set[str]] = {}
        for (architecture, _), engine in engines.items():
            used.setdefault(architecture.spec.name, set()).add(engine.name)
        names = {model: ", ".join(sorted(found)) for model, found in used.items()}
        is_native = any(engine.name == "native" for engine in engines.values())
        native = {"compiler": engine_compiler()} if is_native else {}
        entry = describe_run(
            names, device, workers, native, command, options.executor, executor.nodes()
        )
        append_run(results_dir, entry)

    with ResultsFolder(results_dir, specs, lambda probe: engines[probe.kind].label) as folder:
        for note in label_notes(question.configuration for question in questions):
            print(note, file=sys.stderr)
        with (
            EXECUTORS[options.executor](
                workers, engines, options.deadline, **on_cluster
            ) as executor,
            Progress(questions) as progress,
        ):
            states = drive(questions, folder, executor, progress.show, before_training)
        rows = [(s.question, s.row(folder.label(s.question.probe(1)))) for s in states]
    return Finished(states, [(question, row) for question, row in rows if row], trained)


def _default_workers(device: str) -> int:
    return usable_cpus() if device == "cpu" else 1
