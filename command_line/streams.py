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


def protect_streams() -> bool:
    """Make the streams of a script robust; return whether there is a standard output.

    A closed descriptor is filled with the null device, or the next file opened would get its
    number, and with it whatever is printed. What an encoding lacks is printed escaped.
    """
    has_output = sys.stdout is not None
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # tests replace the streams
    null = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # open to the end of the process
    sys.stdout = _Output(sys.stdout or null)
    sys.stderr = _Notes(sys.stderr or null)
    return has_output


def abandon_output() -> None:
    """Send what is still buffered nowhere: the interpreter would complain of it when it ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
