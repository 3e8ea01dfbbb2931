"""A question that the project does not have: all it takes is one class beside the others.

It looks for the size that is memorized in half of the repeats, in rounds of several sizes and
repeats; the next sizes follow from the shares of the last ones.
"""

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd
import pytest
from test_driver import PAPER, InstantWorkers, outcome_of, true_threshold

from mlp_experiments.mlp_utils import SPEC, MLPArchitecture
from threshold_search.driver import drive
from threshold_search.log.results_folder import ResultsFolder
from threshold_search.options import Options
from threshold_search.plan import searches
from threshold_search.questions.question import Question, State
from threshold_search.run import run_searches
from training.errors import OutOfMemory

SMALL = MLPArchitecture(4, 1)


@dataclass(frozen=True, kw_only=True)
class Half(Question):
    """The middle of ``repeats`` thresholds, to ``width`` sequences, up to ``limit``."""

    repeats: int = 4
    limit: int = 64
    width: int = 4

    noun: ClassVar[str] = "halves"

    def start(self):
        return HalfState(self)


class HalfState(State):
    """Between ``low`` and ``high`` sequences; a round is every repeat at three sizes between."""

    def __init__(self, half):
        super().__init__(half)
        self.low, self.high, self.rounds = 0, half.limit, 0
        self._round = self._next_round()

    def _next_round(self):
        half, step = self.question, (self.high - self.low) // 4
        sizes = [self.low + step * i for i in (1, 2, 3)] if step * 4 >= half.width else []
        sizes += sizes[:1]  # a round may want a probe twice
        return [half.probe(n, repeat) for n in sizes for repeat in range(half.repeats)]

    def wanted(self):
        return self._round

    def take(self, outcomes):
        super().take(outcomes)
        for n in dict.fromkeys(probe.n for probe in self._round):
            pairs = zip(self._round, outcomes, strict=True)
            verdicts = [outcome.memorized for probe, outcome in pairs if probe.n == n]
            if 2 * sum(verdicts) >= len(verdicts):
                self.low = n
            else:
                self.high = n
                break
        self.rounds += 1
        self._round = self._next_round()

    @property
    def remaining(self):
        return float(len(self._round))

    @property
    def where(self):
        return f"{self.low} to {self.high}"


def answers(folder, questions, **options):
    finished = run_searches(questions, Options(results_dir=folder, **options))
    found = [(state.low, state.high, state.rounds) for state in finished.states]
    return found, finished


def test_it_is_asked_the_same_whoever_trains_and_resumed_from_the_log(tmp_path):
    half = Half(SMALL, SPEC.protocol(max_epochs=200), 904)
    one, finished = answers(tmp_path / "one", [half], workers=1)
    assert finished.trained and finished.rows == []
    ((low, high, rounds),) = one
    assert rounds > 1 and 0 < high - low <= 4
    log = tmp_path / "one" / "mlp_probes.csv"
    rows = pd.read_csv(log)
    assert len(rows) == 12 * rounds  # three sizes, four repeats
    shares = rows.groupby("n").memorized.mean()
    assert shares.get(low, 1) >= 0.5 > shares.get(high, 0)
    two, _ = answers(tmp_path / "two", [half], workers=2)
    assert two == one
    # Interrupted in the middle of the second round: it trains what is missing, no more.
    lines = log.read_text().splitlines(keepends=True)
    log.write_text("".join(lines[: 1 + 12 + 5]))
    again, finished = answers(tmp_path / "one", [half], workers=2)
    assert again == one and finished.trained
    assert len(log.read_text().splitlines()) == len(lines)
    again, finished = answers(tmp_path / "one", [half])
    assert again == one and not finished.trained


class Shuffled(InstantWorkers):
    """Ends what came last first; asserts that rounds are not mixed."""

    def __init__(self, count, largest=10**9):
        super().__init__(count, newest_first=True)
        self.largest = largest

    def wait(self, timeout):
        if (probe := self.running[-1]).n > self.largest:
            self.running.pop()
            return [(probe, OutOfMemory("too large"))]
        return super().wait(timeout)


@pytest.mark.parametrize("count", [1, 5, 100])
def test_beside_searches_that_share_its_probes(count, tmp_path):
    half = Half(SMALL, PAPER, 904, repeats=6, limit=256, width=1)
    bisections = searches([(SMALL, PAPER, 904)], repeats=6)
    workers = Shuffled(count)
    with ResultsFolder(tmp_path, [SPEC]) as folder:
        state, *others = drive([half, *bisections], folder, workers)
    assert len(set(workers.trained)) == len(workers.trained)
    truth = sorted(true_threshold(half.probe(1, repeat)) for repeat in range(6))
    assert state.low <= truth[3] and truth[2] <= state.high
    assert state.taken == [(probe, outcome_of(probe)) for probe, _ in state.taken]
    assert len({other.bounds.threshold for other in others}) > 1


def test_a_round_that_memory_is_too_short_for_ends_the_question_alone(tmp_path):
    """The rest of its round is not trained."""
    half = Half(SMALL, PAPER, 904, repeats=50, limit=256)
    wide = dataclasses.replace(half, architecture=MLPArchitecture(5, 1), limit=32)
    workers = Shuffled(2, largest=100)
    with ResultsFolder(tmp_path, [SPEC]) as folder:
        state, other = drive([half, wide], folder, workers)
    assert state.failure == "too large" and state.taken == []
    assert other.failure is None and other.rounds > 1
    assert len([p for p in workers.trained if p.architecture == SMALL]) <= 150 - 100
