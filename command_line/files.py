"""Files that are written whole or not at all. Imports no torch."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, TextIO

from training.errors import UserError


def is_plain(path: Path) -> bool:
    """Return whether ``path`` is a regular file, or nothing yet: what may be replaced or undone."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True


def require_writable(path: Path) -> None:
    """Raise :class:`UserError` unless ``path`` could be created, replaced or written into."""
    target = Path(os.path.realpath(path))
    if _standard_stream(path) is not None:
        return
    if is_plain(path):
        is_possible = target.parent.is_dir() and os.access(target.parent, os.W_OK)
    else:
        is_possible = not path.is_dir() and os.access(path, os.W_OK)
    if not is_possible:
        raise UserError(f"cannot write {path}")


def write_whole(path: Path, writer: Callable[[BinaryIO], object]) -> None:
    """Let ``writer`` fill ``path``: a regular file is replaced at once, anything else written into.

    A symbolic link stays, and what it leads to is written. Devices, pipes and the process's own
    standard streams get all bytes after ``writer`` has succeeded. Raises :class:`UserError`.
    """
    path = Path(path)
    require_writable(path)
    stream = _standard_stream(path)
    try:
        if stream is None and is_plain(path):
            _replace(Path(os.path.realpath(path)), writer)
            return
        content = io.BytesIO()
        writer(content)
        if stream is None:
            with path.open("wb", buffering=0) as file:
                _write_all(file.fileno(), content.getvalue())
        else:
            stream.flush()
            _write_all(stream.fileno(), content.getvalue())
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def append_whole(path: Path, data: bytes) -> None:
    """Append ``data`` to ``path``, all of it or, where that fails, nothing.

    Raises :class:`UserError` naming the file.
    """
    try:
        with path.open("ab", buffering=0) as file:
            before = os.fstat(file.fileno()).st_size
            try:
                _write_all(file.fileno(), data)
            except BaseException:  # a full disk, a size limit, Ctrl-C between two parts
                if is_plain(path):
                    os.ftruncate(file.fileno(), before)
                raise
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror}") from None


def _write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``; what a call returns may be less than it was given."""
    rest = memoryview(data)
    while rest:
        written = os.write(descriptor, rest)
        if written == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rest = rest[written:]


def _standard_stream(path: Path) -> TextIO | None:
    """Return the process's own stream that ``path`` is, such as /dev/stdout, or None.

    Opening it anew would start at the beginning of a file that it was sent to.
    """
    if not str(path).startswith(("/dev/", "/proc/")):
        return None
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            if os.path.samestat(os.stat(path), os.fstat(stream.fileno())):
                return stream
    return None


def _replace(path: Path, writer: Callable[[BinaryIO], object]) -> None:
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as file:
            writer(file)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:
        if temporary is not None:
            os.unlink(temporary)
        raise
