"""Parts of arrays along an axis: views whose elements need not lie one behind the other."""

from __future__ import annotations

from functools import lru_cache
from math import prod
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
    elements, count, length, pitch = _runs(array.shape, array.strides, array.itemsize)
    memory = as_strided(array, (elements,), (array.itemsize,))
    return memory, count, length, pitch


@lru_cache(1024)
def _runs(
    shape: tuple[int, ...], strides: tuple[int, ...], itemsize: int
) -> tuple[int, int, int, int]:
    """The elements from the first to the last, and the runs of :func:`rows_of`."""
    inner = len(shape)
    length = itemsize
    while inner and (strides[inner - 1] == length or shape[inner - 1] == 1):
        inner -= 1
        length *= shape[inner]
    outer = shape[:inner]
    count = prod(outer)
    pitch = strides[inner - 1] if inner else length
    step = pitch
    for size, stride in zip(reversed(outer), reversed(strides[:inner]), strict=True):
        if size > 1 and stride != step:
            raise ValueError(f"strides {strides} of shape {shape} are no runs")
        step *= size
    return ((count - 1) * pitch + length) // itemsize, count, length, pitch
