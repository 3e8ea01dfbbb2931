"""Standard output and error that cannot break a run. Imports no torch."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any


class OutputLost(Exception):
    """Standard output cannot be written; its text is the reason, empty if its reader has left."""


class _Stream:
    """A stream that does itself what its subclass does not."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Output(_Stream):
    """Standard output that raises :class:`OutputLost` where it cannot be written."""

    def write(self, text: str) -> int:
        """Write ``text`` or raise OutputLost."""
        return self._or_lost(lambda: self._stream.write(text))

    def flush(self) -> None:
        """Write what is buffered or raise OutputLost."""
        self._or_lost(self._stream.flush)

    def _or_lost(self, action: Any) -> Any:
        try:
            return action()
        except BrokenPipeError:  # the reader (head, less) has left; there is nobody to tell
            raise OutputLost from None
        except OSError as error:
            raise OutputLost(f"cannot write to standard output: {error.strerror}") from None


class _Notes(_Stream):
    """Standard error that drops what it cannot write: there is nobody to tell.

    Its terminal may have been closed, or its disk be full, while a search still has a place to
    write to.
    """

    def write(self, text: str) -> int:
        """Write ``text`` if possible."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
            self._stream.flush()
        return len(text)

    def flush(self) -> None:
        """Write what is buffered if possible."""
        with contextlib.suppress(OSError):
            self._stream.flush()


def protect_streams() -> None:
    """Make the streams of a script robust; what their encodings lack is printed escaped."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # tests replace the streams
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if not isinstance(sys.stdout, _Output):
        sys.stdout = _Output(sys.stdout)
    if not isinstance(sys.stderr, _Notes):
        sys.stderr = _Notes(sys.stderr)


def abandon_output() -> None:
    """Send what is still buffered nowhere: the interpreter would complain of it when it ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
