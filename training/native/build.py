"""Compile the C++ sources of this folder, once per user and machine type.

Libraries are cached in ``$XDG_CACHE_HOME`` (or ``~/.cache``) ``/memorization-thresholds``, under
names derived from the sources, the compiler, its flags and the CPU, and from their own content;
delete the folder to rebuild. Installing the project compiles those that models need (setup.py), so
that no job has to wait; where that did not happen, or something has changed since, the first use
does. A script asks for that before it imports torch, which takes about as long. Imports no torch.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from training.native.libraries import LIBRARIES, ONLY_FOR_TESTS

NO_COMPILER_VARIABLE = "MEMORIZATION_NO_COMPILER"
SOURCES = Path(__file__).parent
COMPILE_SECONDS = 120
VERSION_SECONDS = 10

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
    "-shared",
)


class _Unavailable(Exception):
    """Why there is no library, in one line."""


# Libraries this process has asked for: each with why it is not available, or None.
_loaded: dict[str, tuple[ctypes.CDLL | None, str | None]] = {}


def start_compiling(names: Iterable[str]) -> None:
    """Have those of the libraries ``names`` that are not cached compiled at the same time; return.

    There are no more compilers than cores. :func:`load_library` waits for the result; at the
    process's end, what is finished is kept and the rest given up.
    """
    for name in names:
        if name in _loaded or len(_compiling) >= (os.cpu_count() or 1):
            continue
        try:
            _cached_or_started(name)
        except (_Unavailable, OSError, RuntimeError):
            return  # load_library will meet it too, and keep it for why_unavailable


def load_libraries(names: Iterable[str]) -> bool:
    """Compile and load all these; return whether this machine can have them all."""
    names = list(names)
    if any(name in _loaded and load_library(name) is None for name in names):
        return False
    for name in names:
        start_compiling(names)
        if load_library(name) is None:
            _end_all()
            return False
    return True


def load_library(name: str) -> ctypes.CDLL | None:
    """Return a library, compiled if needed; None if this machine cannot have it."""
    if name not in _loaded:
        _loaded[name] = _load(name)
    return _loaded[name][0]


def why_unavailable(name: str) -> str | None:
    """Return in one line why :func:`load_library` returns None; None if it does not."""
    load_library(name)
    return _loaded[name][1]


def compile_for_models() -> None:
    """Fill the cache with every library that models need, as far as this machine can."""
    load_libraries(name for name in LIBRARIES if name not in ONLY_FOR_TESTS)


def _load(name: str) -> tuple[ctypes.CDLL | None, str | None]:
    try:
        while (path := _cached_or_started(name)) is not None:
            try:
                return ctypes.CDLL(str(path)), None
            except OSError:  # linked for another system that shares the folder, say
                path.unlink(missing_ok=True)
        return ctypes.CDLL(str(_finished(name))), None
    except _Unavailable as reason:
        return None, str(reason)
    except (OSError, RuntimeError) as error:  # RuntimeError: a user without a home folder
        return None, f"the compiled library cannot be built or loaded: {error}"


def find_compiler() -> str | None:
    """Return the path of the C++ compiler to use (``$CXX``, c++, g++ or clang++), or None."""
    if _is_switched_off():
        return None
    names = (os.environ.get("CXX", ""), "c++", "g++", "clang++")
    found = next(filter(None, map(shutil.which, filter(None, names))), None)
    return found and os.path.abspath(found)  # it runs in a folder of its own


def _is_switched_off() -> bool:
    return os.environ.get(NO_COMPILER_VARIABLE, "") not in ("", "0")


def cache_folder() -> Path:
    """Return the folder that holds compiled libraries; it need not exist."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "memorization-thresholds"


class _Compilation:
    """A library that is being compiled by a process of its own."""

    def __init__(self, name: str, command: list[str], stem: str) -> None:
        self._stem, cache = stem, cache_folder()
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sweep(cache)
        # Not a TemporaryDirectory: that would be gone before _end_all() runs.
        self._folder = Path(tempfile.mkdtemp(dir=cache, prefix="build-"))
        # As one translation unit the sources' common headers are read once.
        includes = [f'#include "{source}.cpp"\n' for source in LIBRARIES[name].sources]
        (self._folder / "library.cpp").write_text("".join(includes), encoding="utf-8")
        self._result = self._folder / "library.so"
        # Names without the folder: they may get into the library, which shall always be the same.
        files = ["-iquote", str(SOURCES), "library.cpp", "-o", self._result.name]
        self._process = _start([*command, *files], self._folder)
        self._deadline = time.monotonic() + COMPILE_SECONDS

    def finish(self) -> Path:
        """Wait for the library and return its path in the cache.

        Two processes may do this at the same time: each renames a complete library into place.
        """
        _output(self._process, self._deadline)
        target = cache_folder() / f"{self._stem}-{_digest(self._result.read_bytes())}.so"
        os.replace(self._result, target)
        return target

    def end(self) -> None:
        """Leave nothing behind but a library that is finished."""
        try:
            if self._process.poll() == 0 and self._result.exists():
                self.finish()
        except (_Unavailable, OSError):
            pass  # it will be compiled again
        finally:
            _kill(self._process)
            shutil.rmtree(self._folder, ignore_errors=True)


def _sweep(cache: Path) -> None:
    """Remove what processes that were killed have left."""
    for folder in cache.glob("build-*"):
        with contextlib.suppress(OSError):  # another process was faster
            if time.time() - folder.stat().st_mtime > 10 * COMPILE_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)


_compiling: dict[str, _Compilation] = {}


@atexit.register
def _end_all() -> None:
    while _compiling:
        _compiling.popitem()[1].end()


def _cached_or_started(name: str) -> Path | None:
    """Return the path of a cached library; otherwise see that it is being compiled."""
    if name in _compiling:
        return None
    compiler = find_compiler()
    if compiler is None:
        if _is_switched_off():
            raise _Unavailable(f"{NO_COMPILER_VARIABLE} is set")
        raise _Unavailable("no C++ compiler found (c++, g++ or clang++)")
    command = [compiler, *FLAGS, *LIBRARIES[name].flags]
    stem = f"{name}-{_key(name, command)}"
    for path in sorted(cache_folder().glob(f"{stem}-*.so")):
        # Loading a file that was cut short would end the process.
        if path.stem == f"{stem}-{_digest(path.read_bytes())}":
            return path
    _compiling[name] = _Compilation(name, command, stem)
    return None


def _finished(name: str) -> Path:
    try:
        return _compiling[name].finish()
    finally:
        _compiling.pop(name).end()


def _key(name: str, command: list[str]) -> str:
    """Return a name for what decides the machine code: sources, compiler, flags and CPU."""
    sources = [SOURCES / f"{source}.cpp" for source in LIBRARIES[name].sources]
    parts = [*command, _version(command[0]), _cpu()]
    for path in (*sources, *sorted(SOURCES.glob("*.h"))):
        parts += [path.name, path.read_text(encoding="utf-8")]
    return _digest(b"".join(part.encode() + b"\0" for part in parts))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:24]


@functools.cache
def _version(compiler: str) -> str:
    process = _start([compiler, "--version"])
    try:
        return _output(process, time.monotonic() + VERSION_SECONDS)
    finally:
        _kill(process)


@functools.cache
def _cpu() -> str:
    """Return a text that differs between CPUs with different instructions or model."""
    wanted = ("model name", "flags", "Features", "CPU implementer", "CPU part")
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()} {platform.version()}"
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))


def _start(command: list[str], folder: Path | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def _output(process: subprocess.Popen[str], deadline: float) -> str:
    """Return what the process prints; raise :class:`_Unavailable` if it fails or is too slow."""
    try:
        # At least a second: it may have ended long ago, with its output still to be read.
        output, _ = process.communicate(timeout=max(1.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        raise _Unavailable("the compiler takes too long") from None
    if process.returncode != 0:
        lines = [line for line in output.splitlines() if "error" in line] or output.splitlines()
        detail = lines[0].strip() if lines else f"exit status {process.returncode}"
        raise _Unavailable(f"compiling failed: {detail}")
    return output


def _kill(process: subprocess.Popen[str]) -> None:
    """End the process, if it has not ended, and its children: a compiler is a mere driver."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
