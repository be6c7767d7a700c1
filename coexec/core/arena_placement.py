"""Places blocks of an arena one after the other, each into the tightest gap of its lifetime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Block:
    """``nbytes`` (aligned) that are live from step ``first`` to step ``last``, both included."""

    name: str
    nbytes: int
    first: int
    last: int

    @property
    def steps(self) -> int:
        """For how many steps it is live."""
        return self.last - self.first + 1


def place_in_order(
    blocks: Sequence[Block], walls: Sequence[tuple[Block, int]] = ()
) -> dict[str, int]:
    """Offsets in bytes of ``blocks``, placed in this order beside ``walls`` (blocks with offsets).

    A block goes to the tightest gap between those that are live with it, the lowest of equals, else
    behind them all.
    """
    total = len(blocks) + len(walls)
    # A row for each block that has its place, sorted by offset: start, end, first step, last step.
    table = np.zeros((4, total), np.int64)
    count = len(walls)
    if walls:
        rows = [(offset, offset + b.nbytes, b.first, b.last) for b, offset in walls]
        table[:, :count] = np.array(sorted(rows), np.int64).T
    offsets: dict[str, int] = {}
    for block in blocks:
        offset = _tightest_gap(table[:, :count], block)
        offsets[block.name] = offset
        count = _insert(table, count, block, offset)
    return offsets


def _tightest_gap(table: np.ndarray[tuple[int, ...], np.dtype[np.int64]], block: Block) -> int:
    together = (table[2] <= block.last) & (table[3] >= block.first)
    starts = table[0][together]
    if not len(starts):
        return 0
    ends = np.maximum.accumulate(table[1][together])
    below = np.concatenate(([0], ends[:-1]))
    gaps = starts - below
    wide = np.flatnonzero(gaps >= block.nbytes)
    if not len(wide):
        return int(ends[-1])
    return int(below[wide[np.argmin(gaps[wide])]])


def _insert(
    table: np.ndarray[tuple[int, ...], np.dtype[np.int64]], count: int, block: Block, offset: int
) -> int:
    """Put a block into the table behind all that start no later; the new number of rows."""
    place = int(np.searchsorted(table[0, :count], offset, side="right"))
    table[:, place + 1 : count + 1] = table[:, place:count]
    table[:, place] = (offset, offset + block.nbytes, block.first, block.last)
    return count + 1
