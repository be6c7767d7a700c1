"""The command line: one file per command."""

from __future__ import annotations

import sys

from coexec.cli.interrupted import INTERRUPTED, leave_interrupted, tell_interrupted

try:
    from coexec.cli import app
except KeyboardInterrupt:  # half of a command's first second is imports
    tell_interrupted()
    sys.exit(INTERRUPTED)

__all__ = ["main"]


def main() -> None:
    """Entry point of the ``coexec`` command, which is all that its process does.

    Exit status: 0, 1 error, 2 usage, 130 Ctrl-C.
    """
    try:
        app.main()
    except SystemExit as ending:
        if ending.code == INTERRUPTED:
            leave_interrupted()
        raise
