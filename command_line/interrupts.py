"""Ctrl-C, and the signals of schedulers and closed terminals. Imports no torch."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# What asks a run to end, as far as this system knows it.
ENDING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
_received = signal.SIGINT


def end_like_ctrl_c() -> None:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt; what is ignored, as under nohup, stays so."""
    for number in ENDING:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _raise)


def _raise(number: int, frame: FrameType | None) -> None:
    global _received
    _received = signal.Signals(number)
    raise KeyboardInterrupt


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
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or not hasattr(signal, "pthread_sigmask"):  # Windows
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
    """Import torch; a Ctrl-C waits, because in some places it would abort the process instead."""
    with interrupts_held_back():
        import torch  # noqa: F401
