"""Standard output and error that cannot break a run. Imports no torch."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any


class OutputLost(Exception):
    """Standard output cannot be written; its text is the reason, empty if its reader has left."""


class _Output:
    """Standard output that raises :class:`OutputLost` where it cannot be written."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write ``text`` or raise OutputLost."""
        with _as_lost():
            return self._stream.write(text)

    def flush(self) -> None:
        """Write what is buffered or raise OutputLost."""
        with _as_lost():
            self._stream.flush()


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


@contextlib.contextmanager
def _as_lost() -> Any:
    try:
        yield
    except BrokenPipeError:
        raise OutputLost from None
    except OSError as error:
        raise OutputLost(f"cannot write to standard output: {error.strerror}") from None


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
    """Write what is buffered; raise OutputLost where that fails, or nobody could read it.

    It is done with after that, so that the interpreter need not complain of it when it ends.
    """
    try:
        sys.stdout.flush()
    except BaseException:  # a Ctrl-C while a reader takes its time, too
        abandon_output()
        raise
    if not has_reader:
        raise OutputLost("standard output is closed")


def abandon_output() -> None:
    """Send what is still buffered nowhere: the interpreter would complain of it when it ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
