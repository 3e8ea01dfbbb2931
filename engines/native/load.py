"""Load the engine that the installation has built, or say why it cannot be used. No torch."""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from engines.native.build import FAILURE, OFF_VARIABLE, SOURCES, libraries, source_hash

# This interpreter: another one's installation may be of another checkout.
REBUILD = f"build it with: {shlex.join([sys.executable, str(SOURCES / 'build.py')])}"
LIBRARY_VARIABLE = "MEMORIZATION_ENGINE"  # another library of the same sources, for tests


@dataclass(frozen=True)
class Unavailable:
    """Why the engine cannot be used, and what the user can do about it, a phrase each."""

    reason: str
    remedy: str


@functools.cache
def find_engine() -> ctypes.CDLL | Unavailable:
    """Return the engine, or why there is none; the answer of a process never changes.

    Where there are several, it is the one with the widest registers that the processor has.
    """
    if os.environ.get(OFF_VARIABLE, "") not in ("", "0"):
        return Unavailable(f"{OFF_VARIABLE} is set", "unset it to use the compiled engine")
    own = os.environ.get(LIBRARY_VARIABLE)
    paths = [Path(own)] if own else [SOURCES / name for name in libraries()]
    *wider, for_any = paths[::-1]
    for path in wider:
        if isinstance(found := _load(path), ctypes.CDLL):
            return found
    return _load(for_any)


def _load(path: Path) -> ctypes.CDLL | Unavailable:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return Unavailable(f"there is no compiled engine: {_why_not_built()}", REBUILD)
    except OSError as error:
        return Unavailable(f"the compiled engine cannot be read: {error.strerror}", REBUILD)
    # Before it is loaded: an older library may differ in any way.
    if source_hash().encode() not in content:
        return Unavailable("the compiled engine is older than its sources", REBUILD)
    try:
        library = ctypes.CDLL(str(path.resolve()))
    except OSError as error:
        return Unavailable(f"the compiled engine cannot be loaded: {error}", REBUILD)
    if not library.engine_cpu_has_instructions():
        return Unavailable(
            "this processor lacks the AVX2 and FMA instructions of the compiled engine",
            "it needs a processor that has them",
        )
    return library


def load_engine() -> ctypes.CDLL | None:
    """Return the engine, or None where :func:`find_engine` says why not."""
    engine = find_engine()
    return None if isinstance(engine, Unavailable) else engine


def engine_compiler() -> str | None:
    """Return name and version of the compiler that built the engine, or None without one."""
    library = load_engine()
    if library is None:
        return None
    library.engine_compiler.restype = ctypes.c_char_p
    return library.engine_compiler().decode()


def _why_not_built() -> str:
    try:
        return (SOURCES / FAILURE).read_text(encoding="utf-8").strip()
    except OSError:
        return "the installation has not built it"
