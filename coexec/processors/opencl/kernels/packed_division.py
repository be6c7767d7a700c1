"""How a blocked product (packed.py) is divided into tasks of panels and rows.

A task gathers its panels of B, and reads its rows of A once for all of them. Few large tasks read
and gather least, many small ones keep all compute units busy to the end: also one that starts
late. So all of it is counted, in multiplications.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from coexec.processors.opencl.family import ceil_to

COPY_COST, GATHER_COST = 3, 8
"""Time of an element of a panel that is copied from a run of B, and of one that is gathered."""
READ_COST, CACHED_COST = 6, 1
"""Time of an element of A that comes from memory or a shared cache, and from a core's own."""
CACHED_BYTES = 1 << 18
"""Size of A that stays in a core's own cache."""
IDLE = 0.5
"""Work of a slot for which a compute unit waits at the end."""


@dataclass(frozen=True)
class Extent:
    """Rows of A and panels (of ``columns`` columns) of ``batches`` products.

    Register tiles have ``height`` rows, A ``left_bytes``; panels are copied (``flat``) or gathered.
    """

    rows: int
    panels: int
    batches: int
    height: int
    columns: int
    left_bytes: int
    flat: bool

    @property
    def panel_cost(self) -> int:
        """Time of an element of a panel."""
        return COPY_COST if self.flat else GATHER_COST

    @property
    def row_cost(self) -> int:
        """Time of an element of A."""
        return CACHED_COST if self.left_bytes <= CACHED_BYTES else READ_COST


@dataclass(frozen=True)
class Division:
    """Tasks of ``group`` panels and ``rows`` rows (whole tiles)."""

    group: int
    rows: int


@lru_cache(maxsize=4096)
def divide(e: Extent, units: int, slots: int, most_group: int) -> Division:
    """The division that takes least time on ``units`` with so many slots of tasks in work each."""
    groups = even_blocks(max(1, e.panels), most_group)
    tiles = max(1, -(-e.rows // e.height))
    heights = even_blocks(tiles, tiles)
    found = [Division(group, count * e.height) for group in groups for count in heights]
    return min(found, key=lambda d: (time_of(d, e, units, units * slots), -d.rows, -d.group))


def even_blocks(size: int, most: int) -> list[int]:
    """Sizes of blocks, at most ``most``, that divide ``size`` evenly."""
    return sorted({-(-size // -(-size // block)) for block in range(1, most + 1)})


def time_of(d: Division, e: Extent, units: int, slots: int) -> float:
    """Of all tasks, for one step of the sum, in multiplications."""
    rows, panels = ceil_to(e.rows, e.height), max(1, e.panels)
    blocks, groups = -(-rows // d.rows), -(-panels // d.group)
    tasks = blocks * groups * e.batches
    copies = blocks * panels * e.columns * e.panel_cost
    all_work = (rows * panels * e.columns + copies + groups * rows * e.row_cost) * e.batches
    task = d.group * e.columns * (d.rows + e.panel_cost) + d.rows * e.row_cost
    even = all_work / units + IDLE * task * -(-tasks // slots)
    return max(even, task * -(-tasks // units))
