"""Ctrl-C, and the signals of schedulers and closed terminals. Imports no torch."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from training.errors import OutOfMemory, UserError

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # what asks a run to end
# Several signals may mean one end: schedulers send more than one, shells one to each of a group.
ONE_END_SECONDS = 1.0
_received = signal.SIGINT
_last_time = -ONE_END_SECONDS


def exit_when_interrupted() -> None:
    """Let the ending signals end the process at once, in one line: it has done nothing so far.

    For the start of a script, while it imports what :func:`end_like_ctrl_c` cannot interrupt
    without a traceback.
    """
    _handle(_exit)


def end_like_ctrl_c() -> None:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt; what is ignored, as under nohup, stays so."""
    _handle(_raise)
    atexit.register(_ignore)  # nothing is left to be ended then; it would only be a traceback


def _handle(handler: signal.Handlers | object) -> None:
    for number in ENDING:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler, _exit):
            signal.signal(number, handler)  # type: ignore[arg-type]  # a function or SIG_IGN


def _exit(number: int, frame: FrameType | None) -> None:
    with contextlib.suppress(OSError):
        os.write(2, b"\ninterrupted\n")
    os._exit(128 + number)


def _raise(number: int, frame: FrameType | None) -> None:
    global _received, _last_time
    before, _last_time = _last_time, time.monotonic()
    if _last_time - before < ONE_END_SECONDS:
        return
    _received = signal.Signals(number)
    raise KeyboardInterrupt


def _ignore() -> None:
    for number in ENDING:
        if signal.getsignal(number) is _raise:
            signal.signal(number, signal.SIG_IGN)


def interrupted_status() -> int:
    """Return the exit status that says which signal ended the run."""
    return 128 + _received


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Block the signals that end a run; the first that arrives meanwhile is raised afterwards.

    Another thread of this process may take a signal that this thread blocks (NumPy starts some),
    and Python would then still raise here: hence the handlers. They belong to the main thread, the
    only one in which signals raise: in another there is nothing to hold back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []
    held = [number for number in ENDING if signal.getsignal(number) != signal.SIG_IGN]
    handlers = {n: signal.signal(n, lambda number, _: arrived.append(number)) for n in held}
    signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, held)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if arrived:
            signal.raise_signal(arrived[0])


def import_torch() -> None:
    """Import torch; a Ctrl-C waits, because in some places it would abort the process instead.

    Raises :class:`OutOfMemory` where memory is short, :class:`UserError` for a torch that is
    missing or broken.
    """
    with interrupts_held_back():
        try:
            import torch  # noqa: F401
        except MemoryError:
            raise OutOfMemory("not enough memory to import torch") from None
        except (ImportError, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise UserError(f"torch cannot be imported: {reason}") from None
