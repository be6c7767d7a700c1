"""Tiles of work-groups on GPUs: what products (tiled.py) and convolutions (conv_tiled*.py) share.

A work-group of 64 or 128 items sums a tile of the result (conv_tile.cl); where tiles alone are too
few to occupy the device, sums are cut into parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from coexec.core.types import TensorType
from coexec.processors.opencl.family import DeviceFacts, c_type, ceil_to
from coexec.processors.opencl.kernels.products import accumulator

SPACE: Mapping[str, tuple[int, ...]] = {
    "STAGED": (1, 0),
    "TM": (32, 64, 16, 4),
    "TN": (64, 32),
    "TK": (16, 8, 32),
    "GROUPS": (4, 2, 8, 16),
}
"""Whether steps are brought to local memory, rows and columns of a tile, terms of a step, groups
per compute unit that are enough. Tiles of 4 rows are not staged and have four times the columns."""

COLUMNS = 4
"""Columns of an item."""
HIGH = 64
"""Rows of a tile from which on items have 8 of them; 4 below."""
THIN = 4
"""Rows of a tile that is four times as wide."""
TILES = ((64, 64), (32, 64), (16, 64), (32, 32))
"""Rows and columns of tiles of 64 or 128 items."""
READING = 8
"""What bringing a row or a column of a tile costs in terms of a row's or a column's sums."""
LEAST_ROWS = 9
"""Below, most of any other tile would stand empty."""
LEAST_ITEMS = 128
"""Of a work-group that the device takes."""
LEAST_SPAN = 64
"""Terms of a part of a sum."""
MOST_PARTS = 64


@dataclass(frozen=True)
class Tile:
    """Rows and columns of the result that a work-group computes, and its terms of a step."""

    rows: int
    columns: int
    terms: int

    @property
    def height(self) -> int:
        """Rows of an item."""
        return 8 if self.rows >= HIGH else 4

    @property
    def items(self) -> tuple[int, int]:
        """Items of a group along columns and rows."""
        return self.columns // COLUMNS, self.rows // self.height

    @classmethod
    def of(cls, params: Mapping[str, int]) -> Tile:
        thin = params["TM"] == THIN
        return cls(params["TM"], params["TN"] * (4 if thin else 1), params["TK"])

    def local_bytes(self, dtype: np.dtype[np.generic], padding: int) -> int:
        """Size of a step in local memory, with ``padding`` elements beside each term."""
        sums = np.dtype(accumulator(dtype)).itemsize
        return self.terms * (self.rows + self.columns + padding) * sums

    def within(self, nbytes: int, dtype: np.dtype[np.generic], padding: int) -> Tile:
        """The same with steps that fit in so many bytes."""
        tile = self
        while tile.terms > 1 and tile.local_bytes(dtype, padding) > nbytes:
            tile = replace(tile, terms=tile.terms // 2)
        return tile

    def defines(self, dtype: np.dtype[np.generic]) -> dict[str, str | int | float]:
        """What conv_tile.cl is built with."""
        across, along = self.items
        shape = {"WX": across, "WY": along, "RM": self.height, "TK": self.terms}
        return type_defines(dtype) | shape


def type_defines(dtype: np.dtype[np.generic]) -> dict[str, str | int | float]:
    """What alone.cl is built with, but for the width of vectors."""
    sums = accumulator(dtype)
    return {"T": c_type(dtype), "ACC": c_type(np.dtype(sums)), "SAME": int(sums == dtype.name)}


def refuse_groups(facts: DeviceFacts) -> str | None:
    """Why a device takes no groups of tiles, else ``None``."""
    if facts.max_work_group_size < LEAST_ITEMS:
        return f"groups of {facts.max_work_group_size} items; tiles take {LEAST_ITEMS}"
    return None


def suited_tile(
    rows: int, columns: int, products: int, facts: DeviceFacts, *, staged: bool = True
) -> dict[str, int]:
    """A thin tile for few rows, else the best one; ``staged``: steps may be in local memory."""
    if rows < LEAST_ROWS:
        return {"STAGED": 0, "TM": THIN, "TN": 64}
    return {"STAGED": int(staged and facts.on_chip), **best_tile(rows, columns, products, facts)}


def best_tile(rows: int, columns: int, products: int, facts: DeviceFacts) -> dict[str, int]:
    """Of tiles that divide the results among all compute units, the one that costs the least."""

    def groups(tile: tuple[int, int]) -> int:
        height, width = tile
        return products * -(-rows // height) * -(-columns // width)

    def cost(tile: tuple[int, int]) -> float:
        height, width = tile
        computed = ceil_to(rows, height) * ceil_to(columns, width)
        return computed * (1 + READING / height + READING / width)

    enough = [tile for tile in TILES if groups(tile) >= 2 * facts.compute_units]
    height, width = min(enough or TILES, key=cost)
    return {"TM": height, "TN": width}


def divided(
    depth: int, units: int, unit: int, tasks: int, facts: DeviceFacts, params: Mapping[str, int]
) -> tuple[int, int]:
    """Parts of a sum of ``depth`` terms, and the units of each, multiples of ``unit``.

    As many as occupy the device where one part makes ``tasks`` work-groups.
    """
    wanted = -(-facts.compute_units * params["GROUPS"] // max(tasks, 1))
    parts = max(1, min(wanted, depth // LEAST_SPAN, MOST_PARTS))
    span = max(unit, ceil_to(-(-units // parts), unit))
    return max(1, -(-units // span)), span


def parts_bytes(y: TensorType, parts: int) -> int:
    """Size of the result, or of the parts of its sums where it is made of several."""
    if parts == 1:
        return y.nbytes
    return parts * y.size * np.dtype(accumulator(y.dtype)).itemsize
