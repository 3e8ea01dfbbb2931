"""What the driver costs beside training: bounds on its CPU time, with room for slow machines."""

import time

from test_driver import PAPER, InstantWorkers, outcome_of, searches

from mlp_experiments.mlp_utils import SPEC, MLPArchitecture
from threshold_search.driver import drive
from threshold_search.log.layout import probe_layout
from threshold_search.log.probe_log import ProbeLog
from threshold_search.log.results_folder import ResultsFolder
from training.probe import BITS_VERSION, Probe


class ManyWorkers(InstantWorkers):
    """Spends no time of its own, however many probes are in flight."""

    def __init__(self, count):
        super().__init__(count)
        self.running = {}

    def submit(self, job):
        self.running.update(dict.fromkeys(job))

    def wait(self, timeout):
        probe = next(iter(self.running))
        del self.running[probe]
        self.trained.append(probe)
        return [(probe, outcome_of(probe))]


def test_a_thousand_workers_with_probes_of_a_second_are_kept_busy(tmp_path):
    wanted = searches(repeats=200)  # 1,200
    workers = ManyWorkers(1024)
    with ResultsFolder(tmp_path, [SPEC]) as folder:
        before = time.process_time()
        drive(wanted, folder, workers)
        spent = time.process_time() - before
    assert len(workers.trained) > 5000
    assert spent / len(workers.trained) < 0.5e-3


def test_a_long_log_is_read_at_once(tmp_path):
    layout, rows = probe_layout(SPEC), 60_000
    identity = f"mlp,paper,{BITS_VERSION},bijection,10,10,10,10,9949,49,1"
    lines = [
        f"{identity},{row // 20},0,{row % 20 + 1},False,0.5,{row / 7},{row % 500 + 1},max_epochs,"
        f"{row / 9}\n"
        for row in range(rows)
    ]
    path = tmp_path / "mlp_probes.csv"
    path.write_text(layout.header + "\n" + "".join(lines))
    log = ProbeLog(path, SPEC)
    before = time.process_time()
    log.load()
    assert time.process_time() - before < 2.0  # a fifth of the rows that may take so long
    last = Probe(MLPArchitecture(49, 1), PAPER, 0, (rows - 1) // 20, (rows - 1) % 20 + 1)
    assert log.get(last).seconds == (rows - 1) / 9
