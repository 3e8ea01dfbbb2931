"""Ctrl-C held back while it would do harm. Imports no torch."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_held_back() -> Iterator[None]:
    """Block SIGINT; one that arrives meanwhile is raised afterwards.

    Another thread of this process may take a signal that this thread blocks (NumPy starts some),
    and Python would then still raise here: hence the handler.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    arrived: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _: arrived.append(number))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, handler)
        if arrived:
            signal.raise_signal(signal.SIGINT)


def import_torch() -> None:
    """Import torch; a Ctrl-C waits, because in some places it would abort the process instead."""
    with interrupts_held_back():
        import torch  # noqa: F401
