"""Pooling along rows on CPUs, with explicit vectors: ``pool_rows.cl``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.pool_geometry import PoolGeometry
from coexec.processors.opencl.cnumbers import compute_type, lowest_literal
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    Lowering,
    c_type,
    i32,
    scratch,
)
from coexec.processors.opencl.kernels.pool_fixed import geometry, small_window_of_floats, tensors_of

SPACE: Mapping[str, tuple[int, ...]] = {"SLOTS": (8, 4, 16), "GRID": (16, 64)}
"""Shares of the work per compute unit; KiB of a band's grids, which bound its rows."""

LEAST_ROW = 4
"""Windows of a row; with fewer most lanes would idle."""

MOST_ROW_BYTES = 1 << 17
"""Longest row: a band of a few of them must fit a cache."""

Pair = tuple[int, int]


@dataclass(frozen=True)
class Rows:
    """Windows over planes with two axes; a missing one is trivial."""

    planes: int
    in_size: Pair
    out_size: Pair
    kernel: Pair
    strides: Pair
    pads: Pair
    ends: Pair

    @classmethod
    def of(cls, g: PoolGeometry) -> Rows:
        """``g`` with two axes. Planes whose rows of windows tile them follow each other as one."""
        rows = cls(
            g.batch * g.channels,
            _two(g.in_size, 1),
            _two(g.out_size, 1),
            _two(g.kernel, 1),
            _two(g.strides, 1),
            _two(g.pads_begin, 0),
            _two(g.pads_end, 0),
        )
        height, windows = rows.in_size[0], rows.out_size[0]
        tiled = rows.kernel[0] == rows.strides[0] and height == windows * rows.kernel[0]
        if not tiled or rows.pads[0]:
            return rows
        n = rows.planes
        sizes = ((n * height, rows.in_size[1]), (n * windows, rows.out_size[1]))
        return cls(1, *sizes, rows.kernel, rows.strides, rows.pads, rows.ends)

    @property
    def padded(self) -> bool:
        """Whether some tap falls outside of the input."""
        lasts = (
            (o - 1) * s + k - 1 - p
            for o, s, k, p in zip(self.out_size, self.strides, self.kernel, self.pads, strict=True)
        )
        return any(self.pads) or any(e >= n for e, n in zip(lasts, self.in_size, strict=True))

    @property
    def sheet(self) -> int:
        """Columns of one part of a grid's row."""
        return ((self.out_size[1] - 1) * self.strides[1] + self.kernel[1] - 1) // self.strides[
            1
        ] + 1


def _two(values: tuple[int, ...], trivial: int) -> Pair:
    rows, columns = (trivial,) * (2 - len(values)) + values
    return rows, columns


def refuse_rows(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why rows of vectors do not fit a call that pooling kernels take, else ``None``."""
    refusal = small_window_of_floats(call, facts)
    if refusal:
        return refusal
    g = geometry(call)
    if g.rank > 2:
        return "more than two spatial axes"
    if max(g.dilations) > 1:
        return "dilated windows"
    if g.strides[-1] > 2:
        return f"strides {g.strides}: columns of more than two phases"
    if g.out_size[-1] < LEAST_ROW:
        return f"rows of fewer than {LEAST_ROW} windows"
    if 8 * (g.in_size[-1] + g.pads_begin[-1] + g.kernel[-1]) > MOST_ROW_BYTES:
        return "rows too long for a cache"
    return None


def lower_rows(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One kernel for maxima, averages or the gradient of either."""
    if call.output(0).size == 0:
        return Lowering(())
    r = Rows.of(geometry(call))
    dtype = call.input(0).dtype
    sums = np.dtype(np.float32) if dtype == np.float16 else dtype
    lanes = max(facts.vector_bytes, 16) // sums.itemsize
    room = (params["GRID"] << 10) // sums.itemsize
    slots = facts.compute_units * params["SLOTS"]
    gradient = call.op_type.endswith("Grad")
    maximum = call.op_type.startswith("Max")
    defines: dict[str, str | int | float] = {
        "T": c_type(dtype),
        "ACC": compute_type(dtype),
        "V": lanes,
        "SAME": int(dtype == sums),
        "LOWEST": lowest_literal(dtype),
        "I": "long" if sums.itemsize == 8 else "int",
        "GRAD": int(gradient),
        "MAXIMUM": int(maximum),
        "PADDED": int(r.padded),
        "INCLUDE_PAD": int(call.attribute("count_include_pad", 0)),
    }
    for name, (rows, columns) in {"K": r.kernel, "S": r.strides}.items():
        defines |= {f"{name}1": rows, f"{name}2": columns}
    cut = (_cut_gradient if gradient else _cut_forward)(r, lanes, room, maximum=maximum)
    if gradient:
        defines["P2"] = r.pads[1] % r.strides[1]
    bands = -(-cut.rows // cut.band)
    tasks = r.planes * bands
    sizes = (*r.in_size, *r.out_size, *r.pads, *r.ends, r.sheet)
    numbers = (tasks, bands, cut.band, cut.slot, cut.grid, *sizes, *cut.more)
    slots = min(slots, tasks)
    kernel = KernelCall(
        "pool_rows",
        "pool_rows_grad" if gradient else "pool_rows",
        (*tensors_of(call), scratch(0), *map(i32, numbers)),
        (slots,),
        (1,),
        defines,
    )
    return Lowering((kernel,), (slots * cut.slot * sums.itemsize,))


@dataclass(frozen=True)
class Cut:
    """Rows of a plane in bands; elements of the grid and of a slot; the entry's last arguments."""

    rows: int
    band: int
    grid: int
    slot: int
    more: tuple[int, ...] = ()


def _cut_forward(r: Rows, lanes: int, room: int, *, maximum: bool) -> Cut:
    (k1, _), (s1, s2) = r.kernel, r.strides
    pitch = s2 * r.sheet
    band = min(r.out_size[0], max((room // pitch - k1) // s1, 4))
    grid = ((band - 1) * s1 + k1) * pitch + 2 * lanes
    return Cut(r.out_size[0], band, grid, grid + r.out_size[1] + lanes)


def _cut_gradient(r: Rows, lanes: int, room: int, *, maximum: bool) -> Cut:
    (k1, k2), (s1, s2), (p1, p2) = r.kernel, r.strides, r.pads
    phase = p2 % s2
    whole = (p2 - phase) // s2
    margin = max(-(-(k2 - 1 - phase) // s2) - whole, 0)
    width = margin + max(r.out_size[1], whole + 1 + -(-r.in_size[1] // s2))
    lift = (p1 - (k1 - 1)) // s1
    pitch = s2 * r.sheet if maximum else 0
    # Rows of windows that a band of dX needs: (band + k1 - 1) / s1, rounded up.
    rows = max(room // (s1 * pitch + 2 * width) - (k1 - 1) // s1 - 1, 4)
    band = min(r.in_size[0], rows * s1)
    flow_rows = (band - 1 + p1) // s1 - lift + 1
    grid = (((flow_rows - 1) * s1 + k1) * pitch + 2 * lanes) if maximum else 0
    slot = grid + 2 * (flow_rows * width + 2 * lanes) + r.out_size[1] + lanes
    more = (flow_rows, width, lift, margin + whole, margin)
    return Cut(r.in_size[0], band, grid, slot, more)
