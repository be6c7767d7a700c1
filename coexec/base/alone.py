"""Alone with a file: other processes (and threads) that want it wait."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

if sys.platform == "win32":
    import msvcrt

    def _lock(file: BinaryIO) -> None:
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)

else:
    import fcntl

    def _lock(file: BinaryIO) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Nobody else is in here with the same ``path``; a process that dies leaves it to the next.

    The lock is that of an empty file beside it, which stays: ``path`` itself may be replaced.

    Raises:
        OSError: the folder cannot be written to, or its disk has no locks.
    """
    with path.with_name(f".{path.name}.lock").open("ab") as file:
        _lock(file)  # closing the file gives it back
        yield
