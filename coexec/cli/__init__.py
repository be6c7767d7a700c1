"""The command line: one file per command."""

from __future__ import annotations

import sys

from coexec.cli.interrupted import INTERRUPTED, tell_interrupted

try:
    from coexec.cli.app import main
except KeyboardInterrupt:  # half of a command's first second is imports
    tell_interrupted()
    sys.exit(INTERRUPTED)

__all__ = ["main"]
