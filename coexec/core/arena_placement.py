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


Table = np.ndarray[tuple[int, ...], np.dtype[np.int64]]


def place_in_order(
    blocks: Sequence[Block],
    walls: Sequence[tuple[Block, int]] = (),
    limit: int | None = None,
) -> dict[str, int]:
    """Offsets in bytes of ``blocks``, placed in this order beside ``walls`` (blocks with offsets).

    A block goes to the tightest gap between those that are live with it, the lowest of equals, else
    behind them all. The first that would end above ``limit`` has no offset, nor has any behind it.
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
        if limit is not None and offset + block.nbytes > limit:
            break
        offsets[block.name] = offset
        count = _insert(table, count, block, offset)
    return offsets


def _tightest_gap(table: Table, block: Block) -> int:
    together = ((table[2] <= block.last) & (table[3] >= block.first)).nonzero()[0]
    if not together.size:
        return 0
    gaps = table[0].take(together)
    ends = np.maximum.accumulate(table[1].take(together))
    gaps[1:] -= ends[:-1]
    wide = (gaps >= block.nbytes).nonzero()[0]
    if not wide.size:
        return int(ends[-1])
    place = int(wide[gaps.take(wide).argmin()])
    return int(ends[place - 1]) if place else 0


def _insert(table: Table, count: int, block: Block, offset: int) -> int:
    """Put a block into the table behind all that start no later; the new number of rows."""
    place = int(np.searchsorted(table[0, :count], offset, side="right"))
    table[:, place + 1 : count + 1] = table[:, place:count]
    table[:, place] = (offset, offset + block.nbytes, block.first, block.last)
    return count + 1
