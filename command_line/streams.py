"""Standard output and error that cannot break a run. Imports no torch."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any


class OutputLost(Exception):
    """Standard output cannot be written; its text is the reason, empty if its reader has left."""


class _Output:
    """Standard output that raises :class:`OutputLost` where it cannot be written, and keeps it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self.lost: OutputLost | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write ``text`` or raise OutputLost."""
        with self._as_lost():
            return self._stream.write(text)

    def flush(self) -> None:
        """Write what is buffered or raise OutputLost."""
        with self._as_lost():
            self._stream.flush()

    @contextlib.contextmanager
    def _as_lost(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            has_left = isinstance(error, BrokenPipeError)
            reason = "" if has_left else f"cannot write to standard output: {error.strerror}"
            self.lost = OutputLost(reason)
            raise self.lost from None


class _Notes:
    """Standard error that drops what it cannot write: there is nobody to tell."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write ``text`` if possible."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)
            self._stream.flush()
        return len(text)

    def flush(self) -> None:
        """Write what is buffered if possible."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def fill_descriptors() -> None:
    """Open the null device in place of what is closed of standard input, output and error.

    The next file opened would get its number, and with it whatever is printed.
    """
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # It takes the lowest free number, which is this one. Workers need it as much.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def protect_streams() -> bool:
    """Make the streams of a script robust; return whether there is a standard output.

    What their encodings lack is printed escaped.
    """
    has_output = sys.stdout is not None
    fill_descriptors()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # tests replace the streams
    null = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # open to the end of the process
    if not isinstance(sys.stdout, _Output):
        sys.stdout = _Output(sys.stdout or null)
    if not isinstance(sys.stderr, _Notes):
        sys.stderr = _Notes(sys.stderr or null)
    return has_output


def finish_output(has_reader: bool) -> None:
    """Write what is buffered; raise OutputLost if that or a write before it fails, or none reads.

    It is done with after that, so that the interpreter need not complain of it when it ends.
    """
    try:
        sys.stdout.flush()
    except BaseException:  # a Ctrl-C while a reader takes its time, too
        abandon_output()
        raise
    if isinstance(sys.stdout, _Output) and sys.stdout.lost is not None:
        raise sys.stdout.lost
    if not has_reader:
        raise OutputLost("standard output is closed")


def abandon_output() -> None:
    """Send what is still buffered nowhere: the interpreter would complain of it when it ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
