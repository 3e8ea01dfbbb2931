"""Compile the C++ sources of this folder, once per user and machine type.

There is a library per model, cached in ``$XDG_CACHE_HOME`` (or ``~/.cache``)
``/memorization-thresholds`` under a name derived from the sources, the compiler, its flags and the
CPU; delete the folder to rebuild. Installing the project compiles both (setup.py), so that no job
has to wait; where that did not happen, or something has changed since, the first use does.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

NO_COMPILER_VARIABLE = "MEMORIZATION_NO_COMPILER"
SOURCES = Path(__file__).parent
COMPILE_SECONDS = 120

_IS_ARM = platform.machine().lower() in ("arm64", "aarch64")
# No fast-math: NaN and infinity must survive. errno and FP traps are not used, and giving them up
# lets square roots and conditionals become vector instructions.
FLAGS = (
    "-std=c++17",
    "-mcpu=native" if _IS_ARM else "-march=native",
    "-ffp-contract=fast",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fPIC",
)
# -O3 compiles longer, gemm.cpp three times as long, and makes only the narrow attention faster.
OPTIMISE = ("-O2", "-ftree-vectorize")
OPTIMISE_MORE = ("-O3",)
WORTH_MORE = ("attention_narrow",)

_SHARED = ("gemm", "model")
LIBRARIES = {
    "mlp": ("mlp", *_SHARED),
    "transformer": ("attention_narrow", "attention_wide", "transformer", *_SHARED),
}


class _Unavailable(Exception):
    """Why there is no library, in one line."""


def load_library(model: str) -> ctypes.CDLL | None:
    """Return ``model``'s library, compiled if needed; None if this machine cannot have it."""
    return _load(model)[0]


def why_unavailable(model: str) -> str | None:
    """Return in one line why :func:`load_library` returns None; None if it does not."""
    return _load(model)[1]


@functools.cache
def _load(model: str) -> tuple[ctypes.CDLL | None, str | None]:
    try:
        path = _library(model)
        try:
            return ctypes.CDLL(str(path)), None
        except OSError:  # not a library, whatever happened to it: once more
            path.unlink()
            return ctypes.CDLL(str(_library(model))), None
    except _Unavailable as reason:
        return None, str(reason)
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home folder
        return None, f"the compiled library cannot be built or loaded: {error}"


def find_compiler() -> str | None:
    """Return the path of the C++ compiler to use (``$CXX``, c++, g++ or clang++), or None."""
    if _is_switched_off():
        return None
    names = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    return next(filter(None, map(shutil.which, filter(None, names))), None)


def _is_switched_off() -> bool:
    return os.environ.get(NO_COMPILER_VARIABLE, "") not in ("", "0")


def cache_folder() -> Path:
    """Return the folder that holds compiled libraries; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "memorization-thresholds"


def _library(model: str) -> Path:
    """Return the path of ``model``'s library for this machine, compiled now or earlier."""
    compiler = find_compiler()
    if compiler is None:
        if _is_switched_off():
            raise _Unavailable(f"{NO_COMPILER_VARIABLE} is set")
        raise _Unavailable("no C++ compiler found (c++, g++ or clang++)")
    commands = {name: [compiler, *_flags(name), "-c"] for name in LIBRARIES[model]}
    target = cache_folder() / f"{model}-{_key(compiler, commands)}.so"
    if not target.exists():
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _compile(compiler, commands, target)
    return target


def _flags(source: str) -> tuple[str, ...]:
    return (*FLAGS, *(OPTIMISE_MORE if source in WORTH_MORE else OPTIMISE))


def _key(compiler: str, commands: dict[str, list[str]]) -> str:
    """Return a name for what decides the machine code: sources, compiler, flags and CPU."""
    digest = hashlib.sha256()
    parts = [*_run([[compiler, "--version"]]), _cpu()]
    for name, command in commands.items():
        parts += [*command, (SOURCES / f"{name}.cpp").read_text(encoding="utf-8")]
    for path in sorted(SOURCES.glob("*.h")):
        parts += [path.name, path.read_text(encoding="utf-8")]
    for part in parts:
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()[:24]


def _cpu() -> str:
    """Return a text that differs between CPUs with different instructions or model."""
    wanted = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()} {platform.version()}"
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def _compile(compiler: str, commands: dict[str, list[str]], target: Path) -> None:
    """Compile every source, all at once, link them and rename the result to ``target``.

    Two processes may do this at the same time: each renames a complete library into place.
    """
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="build-") as folder:
        objects = {name: str(Path(folder) / f"{name}.o") for name in commands}
        _run(
            [
                [*command, str(SOURCES / f"{name}.cpp"), "-o", objects[name]]
                for name, command in commands.items()
            ]
        )
        library = Path(folder) / "library.so"
        _run([[compiler, *FLAGS, "-shared", *objects.values(), "-o", str(library)]])
        with library.open("rb") as file:
            os.fsync(file.fileno())  # a machine that crashes now must not leave half a library
        os.replace(library, target)


def _run(commands: list[list[str]]) -> list[str]:
    """Run ``commands`` at the same time and return their outputs.

    Raises :class:`_Unavailable` if one fails; none is left running, whatever happens.
    """
    running: list[subprocess.Popen[str]] = []
    try:
        running += map(_start, commands)
        return [_finish(process) for process in running]
    finally:
        for process in running:
            if process.returncode is None:
                # A compiler is a driver with children of its own; the group holds them all.
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()


def _start(command: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def _finish(process: subprocess.Popen[str]) -> str:
    try:
        output, _ = process.communicate(timeout=COMPILE_SECONDS)
    except subprocess.TimeoutExpired:
        raise _Unavailable(f"compiling took more than {COMPILE_SECONDS} seconds") from None
    if process.returncode != 0:
        lines = [line for line in output.splitlines() if "error" in line] or output.splitlines()
        detail = lines[0].strip() if lines else f"exit status {process.returncode}"
        raise _Unavailable(f"compiling failed: {detail}")
    return output


if __name__ == "__main__":
    for model in LIBRARIES:
        load_library(model)
