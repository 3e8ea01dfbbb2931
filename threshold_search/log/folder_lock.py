"""The lock of a results folder: one search at a time. Imports no torch."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from training.errors import UserError

LOCK_NAME = "results.lock"
# What file systems answer that know no flock.
NO_FLOCK = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)


class FolderLock:
    """Excludes other searches on ``folder``, on this machine and where the file system allows.

    The kernel's lock (flock) ends with its process, so nothing is left behind that could block; the
    empty file stays. Where a file system has none, a marker file says who searches. It is of no
    consequence once its process has ended on this machine, and its name has the folder's number, so
    a copy of the folder is not locked by it. If another machine left it, only a person can tell
    whether it still stands for a search: the message names it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: BaseFileLock | None = None
        self._made: Path | None = None

    def acquire(self) -> None:
        """Create the folder if need be and take its lock, waiting for another search.

        Raises :class:`UserError` where that cannot be.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write to {self._folder}: {error.strerror}") from None
        # The file of a flock is no marker: it says nothing by being there.
        if not self._take(FileLock(self._folder / LOCK_NAME, fallback_to_soft=False)):
            number = os.stat(self._folder).st_ino
            self._take(SoftFileLock(self._folder / f"results-{number}.lock"))

    def _take(self, lock: BaseFileLock) -> bool:
        """Take ``lock``, or return False where the file system knows no such."""
        path, is_soft = Path(lock.lock_file), isinstance(lock, SoftFileLock)
        is_new = not path.exists()
        try:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                remedy = f"Ctrl-C quits; its lock is {path}"
                if is_soft:
                    remedy += ", to be removed if there is no such search"
                print(
                    f"another search is using {self._folder}; waiting for it to end ({remedy})",
                    file=sys.stderr,
                )
                lock.acquire()
        except OSError as error:
            if is_soft or error.errno not in NO_FLOCK:
                raise UserError(f"cannot write to {path}: {error.strerror}") from None
            if is_new:
                with contextlib.suppress(OSError):
                    path.unlink()
            return False
        self._lock, self._made = lock, path if is_new else None
        return True

    def release(self, undo: bool = False) -> None:
        """Give the lock back; with ``undo`` remove the file too if it was not there before."""
        if undo and self._made is not None:  # while it is ours, or a waiting search would have it
            self._made.unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.release()
            self._lock = None
