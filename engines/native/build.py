"""Build the engine: a shared library per instruction set from the C++ sources of this folder.

    python engines/native/build.py                          (again, where the installation does)
    python engines/native/build.py FILE.so -O1 -g ...       (another one, with more flags)

The last form makes what the installation would call FILE.so, or engine.so if that is no such name.

The installation does it (setup.py), for a fixed instruction set; no job ever compiles. The compiler
is ``$CXX`` (with arguments, if it has some), else c++, g++ or clang++. Standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

SOURCES = Path(__file__).parent
LIBRARY = "engine.so"
WIDE_LIBRARY = "engine_avx512.so"  # the same for wider registers: faster, to the same bits
FAILURE = "engine.failed"  # why there is no library, in one line
OFF_VARIABLE = "MEMORIZATION_NO_ENGINE"

# What decides the bits, with vector.h: no contraction, no fast-math. errno and floating-point traps
# are not used, and giving them up lets square roots and conditionals become vector instructions.
FLAGS = (
    *("-std=c++20", "-fno-fast-math", "-ffp-contract=off"),
    *("-fno-math-errno", "-fno-trapping-math"),
)
OPTIMISATION = ("-O3",)
# By machine and library: what every processor that may load it has to have.
AVX2 = ("-mavx2", "-mfma")
# 512 bits where vector.h asks for them; the compiler's own loops are no faster with more than 256.
AVX512 = (*("-mavx512f", "-mavx512vl", "-mavx512bw", "-mavx512dq"), "-mprefer-vector-width=256")
INSTRUCTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "x86_64": {LIBRARY: AVX2, WIDE_LIBRARY: (*AVX2, *AVX512)},
    "arm64": {LIBRARY: ()},
}


class BuildError(Exception):
    """Why the engine cannot be built, in one line."""


def machine() -> str:
    """Return this machine's kind under one name: x86_64, arm64 or another."""
    name = platform.machine().lower()
    return {"amd64": "x86_64", "aarch64": "arm64"}.get(name, name)


def libraries() -> tuple[str, ...]:
    """Return the libraries that this machine may load, the one for any of its processors first."""
    return tuple(INSTRUCTIONS.get(machine(), {LIBRARY: ()}))


def source_hash() -> str:
    """Return a digest of all that the library is made of: sources, headers and flags."""
    digest = hashlib.sha256(repr((FLAGS, OPTIMISATION, INSTRUCTIONS)).encode())
    for path in sorted([*SOURCES.glob("*.cpp"), *SOURCES.glob("*.h")]):
        digest.update(b"\0%s\0" % path.name.encode() + path.read_bytes())
    return digest.hexdigest()


def find_compiler() -> list[str]:
    """Return the command of the C++ compiler; raise :class:`BuildError` if there is none."""
    wanted = os.environ.get("CXX", "").strip()
    if wanted:
        command = shlex.split(wanted)
        if shutil.which(command[0]) is None:
            raise BuildError(f"there is no program {command[0]!r}, which CXX asks for")
        return command
    for name in ("c++", "g++", "clang++"):
        if shutil.which(name):
            return [name]
    raise BuildError("no C++ compiler was found (c++, g++ or clang++)")


def compile_engine(
    target: Path,
    compiler: Sequence[str] | None = None,
    extra: Sequence[str] = (),
    library: str = LIBRARY,
) -> None:
    """Compile the ``library`` to ``target``, whole or not at all.

    ``compiler`` is its command, by default :func:`find_compiler`'s; ``extra`` flags come last.
    Raises :class:`BuildError`.
    """
    if machine() not in INSTRUCTIONS:
        raise BuildError(f"the engine is not made for {machine()} processors")
    command = [
        *(compiler or find_compiler()),
        *FLAGS,
        *OPTIMISATION,
        *INSTRUCTIONS[machine()][library],
        *("-fPIC", "-shared", f'-DSOURCE_HASH="{source_hash()}"'),
        *map(str, sorted(SOURCES.glob("*.cpp"))),
        *extra,
    ]
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".engine-") as folder:
        result = Path(folder) / LIBRARY
        _run([*command, "-o", str(result)])
        os.replace(result, target)  # a running job keeps the one it has loaded


def _run(command: list[str]) -> None:
    environment = {**os.environ, "LC_ALL": "C"}
    try:
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
        )
    except OSError as error:
        raise BuildError(f"{command[0]} could not be run: {error.strerror}") from None
    if ended.returncode != 0:
        lines = [line.strip() for line in ended.stdout.splitlines() if line.strip()]
        errors = [line for line in lines if re.search(r"\berror: ", line)]
        detail = next(iter(errors + lines), f"exit status {ended.returncode}")
        raise BuildError(f"compiling failed: {detail}")


def build_into(folder: Path) -> str | None:
    """Build the libraries into ``folder``; return why that failed, or None.

    A failure is no error of the installation: it removes older libraries, which jobs must not
    use, and leaves the reason for them to print.
    """
    failure = folder / FAILURE
    try:
        if os.environ.get(OFF_VARIABLE, "") not in ("", "0"):
            raise BuildError(f"{OFF_VARIABLE} was set when the project was installed")
        with ThreadPoolExecutor() as threads:
            for _ in threads.map(
                lambda name: compile_engine(folder / name, library=name), libraries()
            ):
                pass
    except (BuildError, OSError) as error:
        reason = str(error)
        with contextlib.suppress(OSError):  # where nothing can be written there is no engine either
            for name in libraries():
                (folder / name).unlink(missing_ok=True)
            failure.write_text(reason + "\n", encoding="utf-8")
        return reason
    failure.unlink(missing_ok=True)
    return None


def main() -> None:
    """Build what the arguments ask for; a failure is one line and exit status 1."""
    try:
        if sys.argv[1:]:
            target = Path(sys.argv[1])
            library = target.name if target.name in libraries() else LIBRARY
            compile_engine(target, extra=sys.argv[2:], library=library)
        elif reason := build_into(SOURCES):
            raise BuildError(reason)
    except (BuildError, OSError) as error:
        sys.exit(f"build.py: error: {error}")


if __name__ == "__main__":
    main()
