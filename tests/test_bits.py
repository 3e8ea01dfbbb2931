"""The same probe, the same bits: with every compiler at hand, any optimisation, any tuning."""

import concurrent.futures
import hashlib
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import bits_of_probes
import pytest

from engines.native import build
from engines.native.load import LIBRARY_VARIABLE, load_engine

pytestmark = pytest.mark.skipif(load_engine() is None, reason="no compiled engine")

PROGRAM = Path(bits_of_probes.__file__)
TUNINGS = {
    "x86_64": ("-mtune=generic", "-mtune=znver3", "-mtune=skylake-avx512", "-mtune=haswell"),
    "arm64": ("-mtune=generic", "-mtune=cortex-a53", "-mtune=cortex-a72", "-mtune=cortex-a57"),
}
# What all machines have to arrive at: SHA-256 of what bits_of_probes.py prints. Where one changes,
# so do all results: see training/probe.py. A model that came later has a digest of its own.
DIGEST = "b4aa9adb6865b0cb7e7dafdd22afabfb8641344e3f5281361044c95a84142c2c"
LATER_DIGESTS = {
    "decoder-only": "060192cc589d93ee7154414c80945f7e61e15f1cb9e9ec92b784e04876abfd20",
}


def printed(**environment):
    """Return what the program prints with the engine that the environment names."""
    return subprocess.run(
        [sys.executable, PROGRAM],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    ).stdout


def digest(lines):
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def usable_libraries():
    """Return the installed libraries that this processor can run."""
    names = build.libraries()
    return names if Path(load_engine()._name).name == names[-1] else names[:1]


def variants():
    """Return (compiler, flags, library): every compiler at hand, -O2 and -O3, a tuning each.

    The libraries that this processor can run take turns.
    """
    compilers = [name for name in ("g++", "clang++") if shutil.which(name)] or ["c++"]
    pairs = itertools.product(compilers, ("-O2", "-O3"))
    usable = usable_libraries()
    return [
        (compiler, (optimisation, tuning), usable[(i + i // 2) % len(usable)])
        for i, ((compiler, optimisation), tuning) in enumerate(
            zip(pairs, TUNINGS[build.machine()], strict=False)
        )
    ]


@pytest.fixture(scope="module")
def usual():
    """The bits of the engine that is installed."""
    return printed()


def test_the_bits_are_pinned(usual):
    lines = usual.splitlines(keepends=True)
    later = {name: [x for x in lines if x.startswith(f"{name} ")] for name in LATER_DIGESTS}
    first = [line for line in lines if line not in itertools.chain(*later.values())]
    assert len(first) >= 40 and all(len(own) >= 20 for own in later.values())
    assert digest(first) == DIGEST
    assert {name: digest(own) for name, own in later.items()} == LATER_DIGESTS


@pytest.mark.parametrize("library", build.libraries())
def test_bits_do_not_depend_on_the_width_of_registers(usual, library):
    if library not in usable_libraries():
        pytest.skip("this processor has no such registers")
    assert printed(**{LIBRARY_VARIABLE: str(build.SOURCES / library)}) == usual


def test_bits_do_not_depend_on_the_compiler(usual, tmp_path):
    if not any(map(shutil.which, ("g++", "clang++", "c++"))):
        pytest.skip("no C++ compiler")

    def of(variant):
        compiler, flags, library = variant
        target = tmp_path / f"{compiler}{''.join(flags)}.so"
        build.compile_engine(target, [compiler], flags, library)
        return printed(**{LIBRARY_VARIABLE: str(target)})

    with concurrent.futures.ThreadPoolExecutor(max_workers=2) as threads:
        for variant, bits in zip(variants(), threads.map(of, variants()), strict=True):
            assert bits == usual, variant
