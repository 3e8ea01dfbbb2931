"""The engine's bits on ARM, emulated: `make test-arm`, which needs a cross compiler and qemu-user.

Trains the probes of bits_of_probes.py by a program compiled for aarch64 from the engine's sources,
and by this machine's engine.
"""

import itertools
import shutil
import subprocess

import numpy as np
import pytest
from bits_of_probes import EPOCHS, probes
from native_runs import start_native

from engines.native.build import FLAGS, OPTIMISATION, SOURCES
from engines.native.load import load_engine
from engines.native.model import engine_settings
from training.start import start_probe

COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
KINDS = ("mlp", "transformer", "decoder_only")  # as native_driver.cpp numbers them
MISSING = [name for name in (COMPILER, EMULATOR) if shutil.which(name) is None]

pytestmark = [
    pytest.mark.arm,
    pytest.mark.skipif(bool(MISSING), reason=f"no {' and no '.join(MISSING)}"),
    pytest.mark.skipif(load_engine() is None, reason="no compiled engine"),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The driver, compiled for ARM."""
    target = tmp_path_factory.mktemp("arm") / "driver"
    sources = [*sorted(SOURCES.glob("*.cpp")), SOURCES.parent.parent / "tests/native_driver.cpp"]
    command = [COMPILER, *FLAGS, *OPTIMISATION, "-static", f"-I{SOURCES}", *map(str, sources)]
    subprocess.run([*command, "-o", str(target)], check=True)
    return target


def emulated(program, probe):
    """Return (losses, weights) of the program."""
    start, architecture = start_probe(probe), probe.architecture
    form = architecture.native_form
    numbers = [getattr(architecture, name) for name in form.shape]
    shape = [KINDS.index(form.name), *numbers, 0, 0, 0][:5]
    weights = np.concatenate([p.detach().numpy().ravel() for p in start.module.parameters()])
    epochs = list(itertools.islice(start.epochs(), EPOCHS))
    content = [
        bytes(
            engine_settings(start.inputs.shape, start.targets.shape[1], probe.protocol, start.masks)
        ),
        np.array([*shape, EPOCHS, weights.size], np.int64),
        *(start.inputs, start.targets),
        *(array for epoch in epochs for array in epoch),
        weights,
    ]
    given = b"".join(part if isinstance(part, bytes) else part.tobytes() for part in content)
    ended = subprocess.run([EMULATOR, program], input=given, stdout=subprocess.PIPE, check=True)
    losses = np.frombuffer(ended.stdout[: 8 * EPOCHS], np.float64)
    return losses.tolist(), ended.stdout[8 * EPOCHS :]


def native(probe):
    """Return (losses, weights) of this machine's engine."""
    model, epochs = start_native(probe)
    losses = []
    for _ in range(EPOCHS):
        model.train_epoch(*next(epochs))
        losses.append(model.evaluate()[0])
    weights = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
    return losses, weights


@pytest.mark.parametrize(("name", "probe"), list(probes()), ids=lambda value: str(value))
def test_the_same_bits_on_arm(name, probe, program):
    assert emulated(program, probe) == native(probe)
