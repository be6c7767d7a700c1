"""Broadcasting as loops: few dimensions, one element stride per operand and dimension."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from coexec.processors.opencl.family import Scalar, ceil_to, i32

MAX_RANK = 8
"""Dimensions that the general strided kernels loop over."""


@dataclass(frozen=True)
class Loops:
    """Dimensions of a result, outermost first, and the element strides of each operand in them."""

    dims: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]

    def padded(self, rank: int) -> Loops:
        """With dimensions of 1 (stride 0) in front up to ``rank``."""
        extra = rank - len(self.dims)
        return Loops((1,) * extra + self.dims, tuple((0,) * extra + s for s in self.strides))


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Element strides of a dense row-major tensor."""
    strides = [1] * len(shape)
    for i in range(len(shape) - 2, -1, -1):
        strides[i] = strides[i + 1] * shape[i + 1]
    return tuple(strides)


def broadcast_strides(shape: Sequence[int], result: Sequence[int]) -> tuple[int, ...]:
    """Strides of a dense tensor along the dimensions of ``result``, 0 where it is repeated."""
    own = [0 if d == 1 else s for d, s in zip(shape, contiguous_strides(shape), strict=True)]
    return (0,) * (len(result) - len(shape)) + tuple(own)


def broadcast_loops(result: Sequence[int], operands: Sequence[Sequence[int]]) -> Loops:
    """The fewest loops over ``result`` in which every operand has a constant stride.

    Dimensions of 1 vanish; neighbours merge where all operands step through them as through one.
    """
    strides = [broadcast_strides(shape, result) for shape in operands]
    dims: list[int] = []
    merged: list[list[int]] = [[] for _ in operands]
    for axis, size in enumerate(result):
        if size == 1:
            continue
        if dims and all(m[-1] == s[axis] * size for m, s in zip(merged, strides, strict=True)):
            dims[-1] *= size
            for m, s in zip(merged, strides, strict=True):
                m[-1] = s[axis]
            continue
        dims.append(size)
        for m, s in zip(merged, strides, strict=True):
            m.append(s[axis])
    return Loops(tuple(dims), tuple(map(tuple, merged)))


def power_of_two(value: int) -> int:
    """The least power of two that is not below ``value``."""
    return 1 << max(value - 1, 0).bit_length()


def line_geometry(
    inner: int, middle: int, outer: int, width: int, local: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Global and local size for items of ``width`` along ``inner``; short lines share a group."""
    items = -(-inner // width)
    first = min(local, power_of_two(items))
    second = min(local // first, power_of_two(middle))
    return (ceil_to(items, first), ceil_to(middle, second), outer), (first, second, 1)


def stride_arguments(loops: Loops) -> tuple[Scalar, ...]:
    """Dimensions, then the strides of each operand, all padded to :data:`MAX_RANK`."""
    full = loops.padded(MAX_RANK)
    return tuple(map(i32, (*full.dims, *(s for operand in full.strides for s in operand))))
