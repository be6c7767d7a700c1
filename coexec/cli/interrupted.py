"""How a command that was ended by Ctrl-C says so and leaves."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from typing import NoReturn

from coexec.base.interrupts import hear_no_interrupts

INTERRUPTED = 130
"""Exit status, as shells have it for a process that Ctrl-C ended."""


def tell_interrupted() -> None:
    """One line on stderr."""
    sys.stderr.write("interrupted\n")


def leave_interrupted() -> NoReturn:
    """End this process at once, but for what was registered to be done at its end.

    The interpreter is not taken down: what was cut short may still have threads that are about to
    call into it, some of them a driver's, to tell that a command is done. It would end them by
    force, and C++ aborts a process of which a thread ends within a function that may not throw.
    """
    hear_no_interrupts()
    atexit._run_exitfuncs()  # as CPython's own processes do that leave like this
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # who read it may be gone, by the same Ctrl-C
            stream.flush()
    os._exit(INTERRUPTED)
