"""Ctrl-C in a terminal goes to every process in it; here it is kept from those that help."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager


def hear_no_interrupts() -> None:
    """Let the calling thread, and processes that it begins, never hear Ctrl-C from now on.

    A driver whose linker is killed aborts the whole process. Where the system has no signal masks
    nothing happens.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})


@contextmanager
def interrupts_held() -> Iterator[None]:
    """As :func:`hear_no_interrupts` for all threads and processes that begin meanwhile.

    The calling thread hears at the end of a Ctrl-C that came meanwhile.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
