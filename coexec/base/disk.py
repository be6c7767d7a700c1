"""Files are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from coexec.base.errors import SaveError


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write ``path`` through a temporary neighbour: write, fsync, rename.

    ``write`` receives the open binary file. On any failure the old file is left as it was. A
    symbolic link stays one: what it points to is written. What is no file but a device or a pipe
    (``/dev/null``) is written to, and not replaced.

    Raises:
        SaveError: the folder or the disk refused (full, read-only, missing).
    """
    path = Path(path)
    temporary = ""
    try:
        if is_special(path):
            with open(path, "wb") as device:
                write(device)
            return
        path = path.resolve()
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes the file private; a saved model is as readable as any other new file.
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise SaveError(
            f"cannot write {path}: {error.strerror or error}; the previous file, if any, is intact"
        ) from error
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)


def is_special(path: Path) -> bool:
    """Whether something other than a file or folder is there."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable; Windows cannot open folders and does not need it."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
