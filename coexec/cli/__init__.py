"""The command line: one file per command."""

from coexec.cli.app import main

__all__ = ["main"]
