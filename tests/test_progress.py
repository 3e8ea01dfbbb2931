"""The bar of a running search, as a terminal of 80 columns shows it."""

import fcntl
import io
import pty
import struct
import sys
import termios

import tqdm.std
from test_driver import InstantWorkers, searches, true_threshold

from mlp_experiments.mlp_utils import SPEC
from threshold_search import progress
from threshold_search.driver import drive
from threshold_search.log.results_folder import ResultsFolder
from threshold_search.progress import Progress, where
from threshold_search.questions.trial import Trial
from training.probe import Outcome


class Terminal(io.StringIO):
    """Keeps what is written; its size is that of a terminal that nobody writes to."""

    def __init__(self, columns):
        super().__init__()
        self._shown, self._number = pty.openpty()
        fcntl.ioctl(self._number, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))

    def isatty(self):
        return True

    def fileno(self):
        return self._number


def terminal(monkeypatch):
    """Make stderr a terminal; of the test's call, because pytest puts its own before that.

    The bar looks at the searches as often as it is told to, not some times a second.
    """
    monkeypatch.setattr(progress, "SECONDS", 0)
    monkeypatch.setattr(sys, "stderr", Terminal(80))
    return sys.stderr


def answer(state, memorized):
    [_] = state.wanted()
    state.take([Outcome(memorized, 1.0, 0.1, 5, "perfect", 0.5)])


def lines_of(terminal):
    return [line for line in terminal.getvalue().replace("\r", "\n").split("\n") if line.strip()]


def test_a_search_says_its_configuration_and_bounds():
    (search,) = searches(repeats=1, depths=(1,))[:1]
    state = search.start()
    said = [where(state)]
    for verdict in [True] * 5 + [False]:  # 2, 4, 8, 16, 32, then 64
        answer(state, verdict)
        said.append(where(state))
    assert said == [
        "mlp 49x1 #0: now 2",
        "mlp 49x1 #0: at least 2, now 4",
        "mlp 49x1 #0: at least 4, now 8",
        "mlp 49x1 #0: at least 8, now 16",
        "mlp 49x1 #0: at least 16, now 32",
        "mlp 49x1 #0: at least 32, now 64",
        "mlp 49x1 #0: 32 to 63, now 48",
    ]


def test_the_bounds_hold_the_threshold_until_the_end():
    (search,) = searches(repeats=1, depths=(2,))[:1]
    state = search.start()
    threshold = true_threshold(search.probe(1))
    while state.is_waiting:
        words = where(state).partition(": ")[2].replace(",", "").split()
        if "to" in words:
            assert int(words[0]) <= threshold <= int(words[2])
        elif "least" in words:
            assert int(words[2]) <= threshold
        answer(state, state.wanted()[0].n <= threshold)
    assert state.bounds.threshold == threshold


def test_a_trial_says_its_size():
    (search,) = searches(repeats=1, depths=(1,))[:1]
    trial = Trial(*search.configuration, repeat=3, n=416)
    assert where(trial.start()) == "mlp 49x1 #3: now 416"


def test_a_narrow_terminal_shows_time_left_configuration_and_bounds(tmp_path, monkeypatch):
    screen = terminal(monkeypatch)
    wanted = searches(repeats=2, depths=(1,))
    with ResultsFolder(tmp_path, [SPEC]) as folder, Progress(wanted) as bar:
        bar._bar.mininterval = 0  # these workers need no time
        drive(wanted, folder, InstantWorkers(), bar.show)
    lines = lines_of(screen)
    assert all(len(line) <= 80 for line in lines)
    assert any("left | mlp 49x1 #0: at least 2, now 4" in line for line in lines)
    assert "| 0.0/4 searches, ? left" in lines[0]
    assert "| 4.0/4 searches, 00:00 left" in lines[-1]


def test_the_time_left_is_that_of_the_mean_rate(monkeypatch):
    screen = terminal(monkeypatch)
    clock = [100.0]
    monkeypatch.setattr(tqdm.std, "time", lambda: clock[0])
    wanted = searches(repeats=2, depths=(1,))
    states = [search.start() for search in wanted]
    with Progress(wanted) as bar:
        bar.show(states)
        clock[0] += 30  # seconds, in which one of four searches ends
        while states[0].is_waiting:
            answer(states[0], states[0].wanted()[0].n <= 40)
        bar.show(states)
        assert "| 1.0/4 searches, 01:30 left" in lines_of(screen)[-1]


def test_nothing_is_drawn_where_nobody_looks(capsys):
    wanted = searches(repeats=1, depths=(1,))
    with Progress(wanted) as bar:
        bar.show([search.start() for search in wanted])
    assert capsys.readouterr().err == ""
