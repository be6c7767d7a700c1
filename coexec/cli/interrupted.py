"""How a command says that it was ended by Ctrl-C."""

from __future__ import annotations

import sys

INTERRUPTED = 130
"""Exit status, as shells have it for a process that Ctrl-C ended."""


def tell_interrupted() -> None:
    """One line on stderr."""
    sys.stderr.write("interrupted\n")
