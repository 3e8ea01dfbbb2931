"""Files that are written whole or not at all. Imports no torch."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from command_line.streams import OutputLost
from training.errors import UserError

LONGEST_CHAIN = 40  # symbolic links that Linux follows
TEMPORARY_NAME = 60  # characters: with a long name and a random one, the file system might refuse


def is_plain(path: Path) -> bool:
    """Return whether ``path`` is a regular file, or nothing yet: what may be replaced or undone."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode) and _descriptor(path) is None
    except FileNotFoundError:
        return True
    except OSError:
        return False


def require_writable(path: Path) -> None:
    """Raise :class:`UserError` unless ``path`` could be created, replaced or written into."""
    descriptor = _descriptor(path)
    if descriptor is not None:
        is_possible = _is_given_to_write(descriptor)
    elif is_plain(path):
        parent = Path(os.path.realpath(path)).parent
        is_possible = parent.is_dir() and os.access(parent, os.W_OK)
    else:
        is_possible = not path.is_dir() and os.access(path, os.W_OK)
    if not is_possible:
        raise UserError(f"cannot write {path}")


def write_whole(path: Path, writer: Callable[[BinaryIO], object]) -> None:
    """Let ``writer`` fill ``path``: a regular file is replaced at once, anything else written into.

    A symbolic link stays, and what it leads to is written. Devices, pipes and open descriptors,
    such as /dev/stdout, get all bytes after ``writer`` has succeeded. Raises :class:`UserError`.
    """
    path = Path(path)
    require_writable(path)
    descriptor = _descriptor(path)
    try:
        if descriptor is None and is_plain(path):
            _replace(Path(os.path.realpath(path)), writer)
            return
        content = io.BytesIO()
        writer(content)
        if descriptor is None:
            _write_into(path, content.getvalue())
        else:
            for stream in (sys.stdout, sys.stderr):  # what was printed before stands before
                stream.flush()
            _write_all(descriptor, content.getvalue())
    except OSError as error:
        if descriptor == 1 and isinstance(error, BrokenPipeError):
            raise OutputLost from None
        raise UserError(f"cannot write {path}: {_reason(error)}") from None


def append_whole(path: Path, data: bytes) -> None:
    """Append ``data`` to ``path``, all of it or, where that fails, nothing.

    Raises :class:`UserError` naming the file.
    """
    try:
        with path.open("ab", buffering=0) as file:
            before = os.fstat(file.fileno())
            try:
                _write_all(file.fileno(), data)
            except BaseException:  # a full disk, a size limit, Ctrl-C between two parts
                if stat.S_ISREG(before.st_mode):
                    os.ftruncate(file.fileno(), before.st_size)
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
    return error.strerror or str(error) or type(error).__name__


def _write_all(descriptor: int, data: bytes) -> None:
    """Write all of ``data``; what a call returns may be less than it was given."""
    rest = memoryview(data)
    while rest:
        written = os.write(descriptor, rest)
        if written == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rest = rest[written:]


def _write_into(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_BINARY", 0))
    try:
        _write_all(descriptor, data)
    finally:
        os.close(descriptor)


def _descriptor(path: Path) -> int | None:
    """Return the open descriptor of this process that ``path`` leads to, such as 1, or None.

    /dev/stdout and /dev/fd/N are links to it. Opening the file behind it anew would begin at its
    start, and replacing it would take it away from whoever else writes to the descriptor.
    """
    own = re.compile(rf"/dev/fd|/proc/{os.getpid()}/(task/\d+/)?fd")
    for _ in range(LONGEST_CHAIN):
        folder = os.path.realpath(path.parent)
        if own.fullmatch(folder) and path.name.isdecimal():
            return int(path.name)
        path = Path(folder, path.name)
        try:
            path = Path(folder, os.readlink(path))
        except (OSError, ValueError):  # no link
            return None
    return None


def _is_given_to_write(descriptor: int) -> bool:
    """Return whether this process was started with ``descriptor``, open for writing."""
    import fcntl  # no Windows has such paths

    try:
        flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
        is_given = descriptor <= 2 or os.get_inheritable(descriptor)  # what Python opens is not
    except (OSError, OverflowError):
        return False
    return is_given and flags & os.O_ACCMODE != os.O_RDONLY


def _replace(path: Path, writer: Callable[[BinaryIO], object]) -> None:
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=f".{path.name[:TEMPORARY_NAME]}."
        )
        with os.fdopen(descriptor, "wb") as file:
            writer(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, _mode(path))  # mkstemp makes it private
        try:
            os.replace(temporary, path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            shutil.copyfile(temporary, path)  # a mount point, as a container has single files
            os.unlink(temporary)
    except BaseException:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):  # an interrupt after the last step
                os.unlink(temporary)
        raise


def _mode(path: Path) -> int:
    """Return the permissions that a file has, or that a new one gets."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except FileNotFoundError:
        umask = os.umask(0)
        os.umask(umask)
        return 0o666 & ~umask
