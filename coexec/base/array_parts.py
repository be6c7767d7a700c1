"""Parts of arrays along an axis: views whose elements need not lie one behind the other."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

Array = NDArray[Any]
Part = tuple[int, ...]
"""An axis, the first element along it and the one behind the last; none of them: all of it."""


def part_of(array: Array, part: Part) -> Array:
    """A view of a part of an array."""
    if not part:
        return array
    axis, start, stop = part
    return array[(*[slice(None)] * axis, slice(start, stop))]


def copy_bytes(target: Array, source: Array) -> None:
    """Copy between two arrays of equally many bytes, one of which may be a part of a larger one."""
    if target.flags.c_contiguous and source.flags.c_contiguous:
        target.reshape(-1).view(np.uint8)[:] = source.reshape(-1).view(np.uint8)
    elif source.flags.c_contiguous:
        target[...] = source.reshape(-1).view(target.dtype).reshape(target.shape)
    else:
        target.reshape(-1).view(source.dtype).reshape(source.shape)[...] = source


def rows_of(array: Array) -> tuple[Array, int, int, int]:
    """An array whose elements lie in equally long runs, equally far apart, as memory without gaps.

    Returns that memory, the number of runs, their length and the distance of their starts in bytes.

    Raises:
        ValueError: they lie otherwise. A part of a contiguous array along one axis does not.
    """
    inner = array.ndim
    length = array.itemsize
    while inner and (array.strides[inner - 1] == length or array.shape[inner - 1] == 1):
        inner -= 1
        length *= array.shape[inner]
    outer = array.shape[:inner]
    count = int(np.prod(outer, dtype=np.int64))
    pitch = array.strides[inner - 1] if inner else length
    steps = np.cumprod((1, *outer[:0:-1]), dtype=np.int64)[::-1] * pitch if inner else ()
    even = all(a == b for a, b, n in zip(array.strides[:inner], steps, outer, strict=True) if n > 1)
    if not even:
        raise ValueError(f"strides {array.strides} of shape {array.shape} are no runs")
    elements = ((count - 1) * pitch + length) // array.itemsize
    memory = as_strided(array, (elements,), (array.itemsize,))
    return memory, count, length, pitch
