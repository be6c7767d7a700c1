"""Strided moves: the one description behind Transpose, Slice, Concat, Split, Expand, Tile, ...

A move says ``dst[dst_offset + i . dst_strides] = src[src_offset + i . src_strides]`` for every
index vector ``i`` below ``dims``; offsets and strides count elements. It is simplified here, in
plain integers, before a kernel sees it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from coexec.core.types import TensorType
from coexec.processors.opencl.family import Operand, ceil_to

MAX_RANK = 8
"""Dimensions the kernels take; more are unrolled into several moves."""

WORDS = {1: "uchar", 2: "ushort", 4: "uint", 8: "ulong", 16: "uint4"}
"""OpenCL C type that carries an element of so many bytes: moves do not care what it means."""


@dataclass(frozen=True)
class Move:
    """One strided copy between two operands of a call."""

    src: Operand
    dst: Operand
    itemsize: int
    dims: tuple[int, ...]
    src_strides: tuple[int, ...]
    dst_strides: tuple[int, ...]
    src_offset: int = 0
    dst_offset: int = 0

    @property
    def size(self) -> int:
        return prod(self.dims)

    @property
    def rank(self) -> int:
        return len(self.dims)


def refuse_moves(types: Sequence[TensorType | None]) -> str | None:
    """Why elements of one of these types cannot be moved, else ``None``."""
    for kind in types:
        if kind is None:
            continue
        if kind.dtype.kind in "OUS" or kind.dtype.itemsize not in (1, 2, 4, 8):
            return f"{kind.dtype.name} elements have no storage on a device"
        if kind.size >= 2**31:
            return f"{kind}: more than 2^31 elements"
    return None


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Strides, in elements, of a contiguous tensor."""
    strides, step = [], 1
    for dimension in reversed(shape):
        strides.append(step)
        step *= dimension
    return tuple(reversed(strides))


def collapsed(move: Move) -> Move:
    """The same move with few dimensions: sorted by target stride, merged where both sides allow."""
    axes = [a for a in zip(move.dims, move.src_strides, move.dst_strides, strict=True) if a[0] != 1]
    merged: list[tuple[int, int, int]] = []
    for size, src, dst in sorted(axes, key=lambda a: -abs(a[2])):
        if merged and merged[-1][1:] == (src * size, dst * size):
            merged[-1] = (merged[-1][0] * size, src, dst)
        else:
            merged.append((size, src, dst))
    dims, src_strides, dst_strides = zip(*(merged or [(1, 1, 1)]), strict=True)
    return replace(move, dims=dims, src_strides=src_strides, dst_strides=dst_strides)


def widened(move: Move, limit: int) -> Move:
    """A collapsed move in the widest words (at most ``limit`` bytes) that divide its runs."""
    if move.src_strides[-1] != 1 or move.dst_strides[-1] != 1:
        return move
    width = max(limit // move.itemsize, 1)
    multiples = (
        move.dims[-1],
        move.src_offset,
        move.dst_offset,
        *move.src_strides[:-1],
        *move.dst_strides[:-1],
    )
    while width > 1 and any(m % width for m in multiples):
        width //= 2
    if width <= 1:
        return move
    return replace(
        move,
        itemsize=move.itemsize * width,
        dims=(*move.dims[:-1], move.dims[-1] // width),
        src_strides=(*(s // width for s in move.src_strides[:-1]), 1),
        dst_strides=(*(s // width for s in move.dst_strides[:-1]), 1),
        src_offset=move.src_offset // width,
        dst_offset=move.dst_offset // width,
    )


def unrolled(move: Move) -> list[Move]:
    """``move`` as moves of at most :data:`MAX_RANK` dimensions."""
    if move.rank <= MAX_RANK:
        return [move]
    result: list[Move] = []
    for index in range(move.dims[0]):
        inner = replace(
            move,
            dims=move.dims[1:],
            src_strides=move.src_strides[1:],
            dst_strides=move.dst_strides[1:],
            src_offset=move.src_offset + index * move.src_strides[0],
            dst_offset=move.dst_offset + index * move.dst_strides[0],
        )
        result.extend(unrolled(inner))
    return result


def swapped_axis(move: Move) -> int | None:
    """The axis whose elements are neighbours in the source while the last axis' are in the target.

    ``None`` where a move is not such a (batched, two-dimensional) transpose.
    """
    if move.dst_strides[-1] != 1 or move.src_strides[-1] in (0, 1):
        return None
    return next((i for i in range(move.rank - 1) if move.src_strides[i] == 1), None)


def span_of(n: int, limit: int) -> int:
    """Neighbouring elements of a work-item: a power of two, at most ``limit`` and ``n``."""
    return min(limit, 1 << (max(n, 1).bit_length() - 1))


def row_grid(n: int, rows: int, span: int, local: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Global and local size for ``rows`` of ``n`` elements, ``span`` of them per work-item.

    About ``local`` work-items form a group; short rows share one.
    """
    items = max(-(-n // span), 1)
    width = min(local, 1 << (items - 1).bit_length())
    height = min(local // width, 1 << (max(rows, 1) - 1).bit_length())
    return (ceil_to(items, width), ceil_to(rows, height)), (width, height)
