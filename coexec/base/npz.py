"""Reading NumPy's ``.npy`` and ``.npz`` files whoever wrote them: damage ends in one exception."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from coexec.base.errors import DataError

DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    MemoryError,  # a header that claims more elements than there is memory
    ArithmeticError,
    RuntimeError,  # zipfile: encrypted, or an unknown compression
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,  # numpy's parser of array headers
)
"""What zipfile and numpy raise on damaged or foreign files (found by mutating good ones)."""


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Arrays of a ``.npz`` archive by name.

    Raises:
        DataError: missing, damaged or not an archive; pickled objects are refused.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except DAMAGED as error:
        raise DataError(f"{path} is not a readable .npz file: {_text(error)}") from error


def read_npy(path: Path) -> NDArray[Any]:
    """The array of a ``.npy`` file.

    Raises:
        DataError: missing, damaged or not one array; pickled objects are refused.
    """
    try:
        loaded = np.load(path, allow_pickle=False)
    except DAMAGED as error:
        raise DataError(f"{path} is not a readable .npy file: {_text(error)}") from error
    if not isinstance(loaded, np.ndarray):
        loaded.close()
        raise DataError(f"{path} is an archive; a .npy file with one array is wanted")
    return loaded


def _text(error: Exception) -> str:
    """The cause in words; an archive's reader fails on a bare array for want of ``with``."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, TypeError) and "context manager" in str(error):
        return "it holds one bare array"
    if str(error).startswith("Object arrays"):
        return "it holds Python objects (dtype object); save arrays of numbers"
    if "allow_pickle" in str(error):
        return "it is no NumPy file (or a pickle, which may run code when read)"
    return str(error) or type(error).__name__
