"""Simplifying strided moves: fewer dimensions, wider words, the same elements moved."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from coexec.core.types import Array
from coexec.processors.opencl.family import inp, out
from coexec.processors.opencl.kernels.moves import (
    MAX_RANK,
    Move,
    collapsed,
    row_grid,
    row_major,
    swapped_axis,
    unrolled,
    widened,
)

SIZE = 4096


def move(
    dims: tuple[int, ...],
    src: tuple[int, ...],
    dst: tuple[int, ...],
    offsets: tuple[int, int] = (0, 0),
    itemsize: int = 4,
) -> Move:
    return Move(inp(0), out(0), itemsize, dims, src, dst, *offsets)


def moved(*moves: Move) -> Array:
    """Bytes of a target of zeros after all moves from a source whose bytes all differ in place."""
    source = np.random.default_rng(7).integers(1, 256, SIZE).astype(np.uint8)
    target = np.zeros(SIZE, np.uint8)
    for m in moves:
        for index in np.ndindex(m.dims):
            src, dst = (
                (offset + int(np.dot(index, strides))) * m.itemsize
                for offset, strides in (
                    (m.src_offset, m.src_strides),
                    (m.dst_offset, m.dst_strides),
                )
            )
            target[dst : dst + m.itemsize] = source[src : src + m.itemsize]
    return target


TRANSPOSE = move((3, 4, 5), (1, 3, 12), (20, 5, 1))
REVERSED = move((2, 3, 4), (12, -4, 1), (12, 4, 1), offsets=(8, 24))
BROADCAST = move((3, 2, 8), (0, 8, 1), (16, 8, 1))
COLUMNS = move((6, 8), (8, 1), (24, 1), offsets=(0, 16))
ODD_COLUMNS = move((6, 6), (6, 1), (20, 1), offsets=(0, 10))
BYTES = move((2, 3, 16), (48, 16, 1), (64, 16, 1), offsets=(16, 32), itemsize=1)
LONE = move((1, 1, 1), (7, 3, 2), (5, 2, 9), offsets=(4, 6))
MOVES = (TRANSPOSE, REVERSED, BROADCAST, COLUMNS, ODD_COLUMNS, BYTES, LONE)


@pytest.mark.parametrize("given", MOVES)
def test_collapsed_moves_the_same_elements(given: Move) -> None:
    assert collapsed(given).rank <= given.rank
    np.testing.assert_array_equal(moved(collapsed(given)), moved(given))


@pytest.mark.parametrize("given", MOVES)
@pytest.mark.parametrize("limit", [4, 8, 16])
def test_widened_moves_the_same_bytes(given: Move, limit: int) -> None:
    wide = widened(collapsed(given), limit)
    assert wide.itemsize <= max(limit, given.itemsize)
    assert wide.size * wide.itemsize == given.size * given.itemsize
    np.testing.assert_array_equal(moved(wide), moved(given))


def test_dimensions_that_both_sides_run_through_merge() -> None:
    assert collapsed(BROADCAST).dims == (3, 16)
    assert collapsed(BYTES).dims == (2, 48)
    assert collapsed(move((3, 4, 5), (1, 15, 3), (20, 5, 1))).dims == (3, 20)
    assert collapsed(LONE).dims == (1,)


def test_dimensions_are_sorted_by_target_stride() -> None:
    shuffled = move((5, 3, 4), (12, 1, 3), (1, 20, 5))
    assert collapsed(shuffled) == collapsed(TRANSPOSE)


def test_words_are_as_wide_as_runs_and_offsets_allow() -> None:
    assert widened(collapsed(COLUMNS), 16).itemsize == 16
    assert widened(collapsed(ODD_COLUMNS), 16).itemsize == 8
    assert widened(replace(COLUMNS, src_offset=1), 16).itemsize == 4
    assert widened(collapsed(BYTES), 16).itemsize == 16
    assert widened(collapsed(BYTES), 4).itemsize == 4


def test_scattered_elements_are_not_widened() -> None:
    assert widened(collapsed(TRANSPOSE), 16) == collapsed(TRANSPOSE)


def test_unrolled_leaves_ranks_that_kernels_take() -> None:
    given = move((2,) * MAX_RANK, row_major((2,) * MAX_RANK), row_major((2,) * MAX_RANK))
    assert unrolled(given) == [given]


def test_unrolled_splits_the_leading_dimensions() -> None:
    dims = (2, 3) + (1, 2) * (MAX_RANK // 2)
    source = row_major(dims)
    target = tuple(np.array(row_major(dims[::-1]))[::-1])
    given = move(dims, source, tuple(int(s) for s in target), offsets=(3, 5))
    parts = unrolled(given)
    assert len(parts) == 6
    assert all(part.rank == MAX_RANK for part in parts)
    np.testing.assert_array_equal(moved(*parts), moved(given))


def test_swapped_axis_is_the_one_contiguous_in_the_source() -> None:
    assert swapped_axis(collapsed(TRANSPOSE)) == 0
    assert swapped_axis(collapsed(COLUMNS)) is None
    assert swapped_axis(collapsed(BROADCAST)) is None


@pytest.mark.parametrize(("n", "rows", "span"), [(1, 1, 1), (7, 30, 4), (1000, 1, 16), (5, 0, 8)])
def test_grids_cover_all_elements_in_whole_groups(n: int, rows: int, span: int) -> None:
    (items, lines), local = row_grid(n, rows, span, 16)
    assert items * span >= n
    assert lines >= rows
    assert local[0] * local[1] <= 16
    assert items % local[0] == 0
    assert lines % local[1] == 0
