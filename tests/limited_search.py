"""A search without training, as a process that can be given limits: python limited_search.py DIR.

With a second argument, the limit of a file's size is as many bytes above the log's after 20
probes, and gone one probe later: as a quota is, when somebody makes room.
"""

import resource
import sys
from pathlib import Path

from test_driver import InstantWorkers, searches

from command_line.parser import run
from mlp_experiments.mlp_utils import SPEC
from threshold_search.driver import drive
from threshold_search.log.results_folder import ResultsFolder
from threshold_search.log.run_record import append_run, describe_run


class LimitedFor1Probe(InstantWorkers):
    """Limits the size of files for the time of one probe, the 20th."""

    def wait(self, timeout):
        """Limit, or lift the limit again."""
        infinity = resource.RLIM_INFINITY
        if len(self.trained) == 20:
            size = (folder / "mlp_probes.csv").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size + int(sys.argv[2]), infinity))
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (infinity, infinity))
        return super().wait(timeout)


def main():
    """Search."""
    workers = InstantWorkers() if len(sys.argv) < 3 else LimitedFor1Probe()
    with ResultsFolder(folder, [SPEC]) as results:
        drive(
            searches(),
            results,
            workers,
            before_training=lambda: append_run(folder, describe_run({}, "cpu", 1)),
        )


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    run(main)
