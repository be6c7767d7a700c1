"""Files that spare later runs some work: a run that cannot write them says so once and goes on."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from coexec.base.alone import alone
from coexec.base.disk import write_atomically
from coexec.base.errors import SaveError
from coexec.base.knobs import CACHE_DIR

log = logging.getLogger(__name__)


def keep(path: Path, write: Callable[[BinaryIO], object]) -> bool:
    """Write a file of the cache, its folder too; false if that cannot be."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, write)
    except SaveError as error:
        _tell(_reason(error.__cause__ or error), path)
        return False
    except OSError as error:
        _tell(_reason(error), path)
        return False
    return True


def keep_merged(path: Path, merged: Callable[[], bytes]) -> bool:
    """:func:`keep` what ``merged`` makes of the file as it is; others that merge wait meanwhile."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with alone(path):
            data = merged()
            return keep(path, lambda file: file.write(data))
    except OSError as error:
        _tell(_reason(error), path)
        return False


def keeps(folder: Path) -> bool:
    """Whether files can be kept in a folder of the cache; says so once if not."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        _tell(_reason(error), folder)
        return False


def _reason(error: BaseException) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


_told: set[str] = set()


def _tell(reason: str, path: Path) -> None:
    if reason in _told:
        return
    _told.add(reason)
    log.warning(
        "later runs will compile and measure again: cannot write %s: %s; %s can name another "
        "folder for what is kept",
        path,
        reason,
        CACHE_DIR.name,
    )
