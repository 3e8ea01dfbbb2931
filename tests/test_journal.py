"""The journal that benchmarks/faults.py counts lost probes by."""

from journaled_search import journaled

from mlp_experiments.mlp_utils import SPEC, MLPArchitecture
from training.probe import Probe


def test_what_a_worker_goes_on_with_is_written_down(tmp_path):
    first, second = (Probe(MLPArchitecture(4, 1), SPEC.protocol(), 0, 3, n) for n in (2, 4))
    following = [second, None]

    class GoesOn:
        """Trains at once, and whatever comes then."""

        def submit(self, job, then=None):
            while then is not None and then([]) is not None:
                pass

    path = tmp_path / "journal"
    journaled(GoesOn, str(path))().submit([first], lambda outcomes: following.pop(0))
    assert path.read_text() == "4x1 3 2\n4x1 3 4\n"
    journaled(GoesOn, str(path))().submit([first])
    assert path.read_text() == "4x1 3 2\n4x1 3 4\n4x1 3 2\n"
