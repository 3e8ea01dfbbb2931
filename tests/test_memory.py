"""The largest published configuration, sixteen models at once, fits in 4 GB."""

import subprocess
import sys

import pytest

from engines.native.load import load_engine

SIXTEEN = """
import math, resource
from training.probe import Probe
from transformer_experiments.transformer_utils import SPEC, TransformerArchitecture

protocol = SPEC.protocol(max_epochs=1)
architecture = TransformerArchitecture(128, 175, 64, 3)  # 537,751 parameters
probes = [Probe(architecture, protocol, 0, repeat, 64) for repeat in range(16)]
{train}
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""
STACKED = "from engines.engine import StackedEngine; StackedEngine().train(probes)"
NATIVE = """
from engines.engine import start_native
pairs = [start_native(probe) for probe in probes]
for model, epochs in pairs:
    model.train_epoch(*next(epochs))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has other units elsewhere")
@pytest.mark.parametrize("train", [STACKED, NATIVE], ids=["stacked", "native"])
def test_sixteen_models_stay_below_4_gigabytes(train):
    if train is NATIVE and load_engine() is None:
        pytest.skip("no compiled engine")
    program = SIXTEEN.format(train=train)
    folder = __file__.rsplit("/", 1)[0]
    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) < 4e9
    print(int(ended.stdout))
