"""Files that are written whole or not at all. Imports no torch."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from training.errors import UserError


def is_plain(path: Path) -> bool:
    """Return whether ``path`` is a regular file, or nothing yet: what may be replaced or undone."""
    return os.path.isfile(path) or not os.path.exists(path)


def require_writable(path: Path) -> None:
    """Raise :class:`UserError` unless ``path`` could be created, replaced or written into."""
    parent = os.path.dirname(os.path.realpath(path))
    needed = parent if is_plain(path) else path
    if os.path.isdir(path) or not os.path.isdir(parent) or not os.access(needed, os.W_OK):
        raise UserError(f"cannot write {path}")


def write_whole(path: Path, writer: Callable[[BinaryIO], object]) -> None:
    """Let ``writer`` fill ``path``: a regular file is replaced at once, anything else written into.

    A symbolic link stays, and what it leads to is written. Devices and pipes, such as /dev/stdout,
    get all bytes after ``writer`` has succeeded. Raises :class:`UserError`.
    """
    path = Path(path)
    require_writable(path)
    try:
        if is_plain(path):
            _replace(Path(os.path.realpath(path)), writer)
        else:
            content = io.BytesIO()
            writer(content)
            path.write_bytes(content.getvalue())
    except OSError as error:
        raise UserError(f"cannot write {path}: {_reason(error)}") from None


def append_whole(path: Path, data: bytes) -> None:
    """Append ``data`` to ``path``, all of it or, where that fails, nothing.

    Raises :class:`UserError` naming the file.
    """
    try:
        with path.open("ab", buffering=0) as file:
            before = os.fstat(file.fileno()).st_size
            try:
                rest = memoryview(data)
                while rest:  # what a call writes may be less than it was given
                    rest = rest[os.write(file.fileno(), rest) :]
            except BaseException:  # a full disk, a size limit, Ctrl-C between two parts
                os.ftruncate(file.fileno(), before)
                raise
    except OSError as error:
        raise UserError(f"cannot write to {path}: {_reason(error)}") from None


def sync(path: Path, with_folder: bool = False) -> None:
    """Have the disk store what was written into ``path``, if that is a regular file.

    ``with_folder`` stores its name too, which a new file needs. Raises :class:`UserError`.
    """
    if not is_plain(path):
        return
    try:
        _sync(path)
        if with_folder:
            _sync(Path(os.path.realpath(path)).parent)
    except FileNotFoundError:  # somebody has deleted it
        return
    except OSError as error:
        raise UserError(f"cannot write to {path}: {_reason(error)}") from None


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that knows no such
            raise
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _replace(path: Path, writer: Callable[[BinaryIO], object]) -> None:
    # Of a long name a part: with all of it the file system might refuse.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:60]}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            writer(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode(path))  # mkstemp makes it private
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):  # an interrupt after the last step
            os.unlink(temporary)
        raise


def _mode(path: Path) -> int:
    """Return the permissions that a file has, or that a new one gets."""
    if path.exists():
        return stat.S_IMODE(path.stat().st_mode)
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
