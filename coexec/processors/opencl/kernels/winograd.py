"""3 x 3 convolutions by minimal filtering on tiles of 4 x 4 results (winograd.cl).

F(4 x 4, 3 x 3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv
1509.09308: 36 multiplications where a convolution counts 144, at some loss of accuracy.

Errors against float64 as shares of the results' standard deviation (normal data, padded by 1; both
runtimes alike), largest / root mean square:

    channels, size     here               packed sums        naive sums
    64,  28 x 28       6.7e-6 / 8.2e-7    2.3e-6 / 3.0e-7    3.7e-6 / 4.2e-7
    256, 14 x 14       1.1e-5 / 1.5e-6    2.1e-6 / 3.7e-7    7.3e-6 / 8.2e-7
    512, 7 x 7         1.8e-5 / 2.0e-6    2.3e-6 / 3.6e-7    1.0e-5 / 1.1e-6

Of float16, results are as far off as their rounding makes them (1.7e-3 / 2.1e-4); where transformed
weights are kept from run to run, they are of 16 bits as well, which makes it 6.5e-3 / 1.0e-3, for
half of the memory and up to 1.4 times the speed where weights are what is read (512, 7 x 7).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    Lowering,
    Operand,
    c_type,
    ceil_to,
    i32,
    inp,
    out,
    scratch,
)
from coexec.processors.opencl.kernels.products import accumulator
from coexec.processors.opencl.kernels.widen import is_narrow
from coexec.processors.opencl.kernels.window import Window, refuse_convolution

SPACE: Mapping[str, tuple[int, ...]] = {
    "MR": (6, 12, 4, 8),
    "NV": (2, 1, 3),
    "BLOCK": (24, 48, 12, 56),
    "DEPTH": (128, 64, 256),
    "SLOTS": (1, 2),
    "GROUP": (1, 4, 2, 8),
}
"""Register tile (MR tiles of the image, NV vectors of channels), tiles in work, channels summed in
registers, tasks in work per compute unit, panels whose products are in work."""

POINTS, TAPS, TILE, PATCH, GROUP, SPAN, PAD = 36, 9, 4, 6, 8, 8, 16
ITEM = 4
"""Bytes of an element of what is computed."""
FILTER_BYTES = 8 << 20
"""Transformed weights at a time: they stay in a shared cache. More rows take several rounds."""
CORE_BYTES = 3 << 19
"""Patches that stay in a core's own cache beside a panel of weights and its products: 512 channels
of 16 tiles are faster panel by panel, 256 of 49 by several."""
PANELS_IN_WORK = 4
"""Panels for which larger patches are read once."""

LEAST_CHANNELS = 16
FILTER_COST, BIG_FILTER_COST, PREPARED_COST, FAR_COST, TILE_COST = 700, 1200, 150, 700, 60
"""Time by row and channel, in multiplications of a direct convolution (9 for a position): to
transform weights, to do so in several rounds, to fetch them transformed, to do so from beyond the
caches of a core, where a network has put others meanwhile; for every tile. Measured
on 16 to 512 channels at 4 x 4 to 56 x 56, both runtimes. Direct sums are several times as fast as
their multiplications here, since they stay in registers, so that 36 cost more than they count."""
FETCH_COST, PATCH_COST = 8, 8
"""Time of a task beside its products: to fetch transformed weights for each of its rows, and to
transform a tile's patch for each channel, in multiplications of a point and a channel."""


@dataclass(frozen=True)
class Filtering:
    """y[m] = bias[m] + sum over c of w[m, c] * x[c]: a convolution, or its input's gradient."""

    images: int
    rows: int
    channels: int
    in_size: tuple[int, int]
    out_size: tuple[int, int]
    pads: tuple[int, int]
    weight_row: int
    weight_channel: int
    reversed: bool
    bias: Operand | None
    prepared: bool
    item: int

    @classmethod
    def of(cls, call: OpCall) -> Filtering:
        """What Conv, ConvTranspose or ConvInputGrad filters."""
        w = Window.of(call)
        i, o, p = w.in_size[1:], w.out_size[1:], w.pads[1:]
        bias = inp(2) if call.has_input(2) else None
        prepared = call.constant(1) is not None
        k, c, item = w.out_channels, w.in_channels, call.input(1).dtype.itemsize
        if call.identifier == "Conv":
            return cls(w.batch, k, c, i, o, p, c * TAPS, TAPS, False, bias, prepared, item)
        back = (2 - p[0], 2 - p[1])
        return cls(w.batch, c, k, o, i, back, TAPS, c * TAPS, True, bias, prepared, item)

    @property
    def tiles(self) -> int:
        return self.images * -(-self.out_size[0] // TILE) * -(-self.out_size[1] // TILE)

    @property
    def positions(self) -> int:
        return self.images * self.out_size[0] * self.out_size[1]

    @property
    def weight_cost(self) -> int:
        """Time for transformed weights, in the measure of :data:`TILE_COST`."""
        item = self.item if self.prepared else ITEM
        big = item * POINTS * self.rows * self.channels > FILTER_BYTES
        if self.prepared:
            return FAR_COST if big else PREPARED_COST
        return BIG_FILTER_COST if big else FILTER_COST

    def rounds(self, panels: int, panel_bytes: int) -> int:
        """How often the scratch for weights is filled; what is prepared does not go through it."""
        if self.prepared:
            return 1
        return -(-panels // max(1, FILTER_BYTES // panel_bytes))


def refuse(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why tiles of 4 x 4 results do not fit or do not pay, else ``None``."""
    if call.identifier == "coexec::ConvWeightGrad":
        return "the gradient of the weights has variants of its own"
    refusal = refuse_convolution(call, facts) or refuse_window(Window.of(call), facts)
    if refusal:
        return refusal
    if accumulator(call.output(0).dtype) != "float32":
        return f"{call.output(0).dtype.name}: transforms are made in float32"
    return refuse_cost(Filtering.of(call))


def refuse_window(w: Window, facts: DeviceFacts) -> str | None:
    """Why a window is not filtered on tiles, else ``None``."""
    if facts.unit_kind != "cpu":
        return "a task needs a cache of its own"
    if w.kernel != (1, 3, 3) or w.in_size[0] != 1 or w.out_size[0] != 1 or w.pads[0] != 0:
        return f"kernel {w.kernel}: not 3 x 3 over two axes"
    if (w.groups, w.strides, w.dilations) != (1, (1, 1, 1), (1, 1, 1)):
        return "groups, strides or dilations"
    if min(w.in_channels, w.out_channels) < LEAST_CHANNELS:
        return f"fewer than {LEAST_CHANNELS} channels: transforms cost more than they save"
    return None


def refuse_cost(f: Filtering) -> str | None:
    """Why transforms of weights and tiles that are partly empty do not pay, else ``None``."""
    if f.weight_cost + TILE_COST * f.tiles <= TAPS * f.positions:
        return None
    return f"{f.tiles} tiles for {f.positions} positions: transforms cost more than they save"


def suited(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """Tiles of registers for 32 registers of 64 bytes; else those for 16 of 32 bytes hold.

    Of 12 rows, sums fill 24 of 32 registers, and images of 14 x 14 (16 tiles) two thirds of them.
    One task has all 49 tiles of 28 x 28. Patches that leave the core's cache from panel to panel
    are read once for four of them.
    """
    tile = {"MR": 8, "BLOCK": 56} if facts.vector_bytes >= 64 else {}
    f = Filtering.of(call)
    block = min(tile.get("BLOCK", SPACE["BLOCK"][0]), f.tiles)
    patch_bytes = POINTS * f.channels * block * ITEM
    return tile | ({"GROUP": PANELS_IN_WORK} if patch_bytes > CORE_BYTES else {})


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Transformed weights and products with them, as many rows at a time as the scratch holds."""
    if call.output(0).size == 0:
        return Lowering(())
    f = Filtering.of(call)
    lanes = 16 if facts.vector_bytes >= 64 else 8
    panel = params["NV"] * lanes
    types = types_of(call.output(0).dtype, f.prepared)
    item = call.output(0).dtype.itemsize if types["NARROW_FILTER"] else 4
    panel_bytes = item * POINTS * (f.channels * panel + PAD)
    panels = -(-f.rows // panel)
    step = -(-panels // f.rounds(panels, panel_bytes))
    defines = types | {"V": lanes, "MR": params["MR"], "NV": params["NV"]}
    d = divide(f.tiles, step, panel, facts, params)
    slots = min(d.tasks, facts.compute_units * params["SLOTS"])
    group = min(params["GROUP"], -(-d.row_block // panel))
    slot = slot_elements(d.block, f.channels, panel, params["MR"], group)
    calls: list[KernelCall] = []
    for first in range(0, panels, step):
        rows = (first * panel, min((first + step) * panel, f.rows))
        calls.append(filter_call(f, rows, panel, panel_bytes, defines))
        calls.append(product_call(f, call, rows, d, slots, slot, params["DEPTH"], group, defines))
    return Lowering(tuple(calls), (step * panel_bytes, slots * slot * 4))


@dataclass(frozen=True)
class Division:
    """Tasks of ``block`` tiles and ``row_block`` rows."""

    tiles: int
    rows: int
    block: int
    row_block: int

    @property
    def tasks(self) -> int:
        return -(-self.tiles // self.block) * -(-self.rows // self.row_block)

    def time(self, units: int, height: int) -> int:
        """Of the busiest compute unit, in multiplications of a point and a channel."""
        products = self.row_block * (ceil_to(self.block, height) + FETCH_COST)
        task = products + PATCH_COST * self.block
        return -(-self.tasks // units) * task


def divide(
    tiles: int, panels: int, panel: int, facts: DeviceFacts, params: Mapping[str, int]
) -> Division:
    """The best division with at most BLOCK tiles in a task.

    Few tiles are not divided among compute units, which would all fetch all weights: rows are.
    """
    height, units = params["MR"], facts.compute_units
    found = (
        Division(tiles, panels * panel, block, -(-panels // parts) * panel)
        for parts in range(1, min(panels, units) + 1)
        for block in range(min(height, params["BLOCK"]), params["BLOCK"] + 1)
    )
    return min(found, key=lambda d: (d.time(units, height), -d.block))


def slot_elements(block: int, channels: int, panel: int, height: int, group: int) -> int:
    """Floats of a slot of winograd.cl: products, masks, places, a stage, and patches."""
    pitch = ceil_to(block, GROUP)
    places = pitch * PATCH * (GROUP + 1) + GROUP * PATCH * (GROUP + 1)
    products = group * POINTS * (ceil_to(block, height) * panel + PAD)
    return ceil_to(products + places + POINTS * (channels * pitch + PAD) + height, 16)


def types_of(dtype: np.dtype[np.generic], prepared: bool) -> dict[str, str | int | float]:
    """What tensors hold, for kernels that compute in float, and transformed weights.

    Those of 16 bits stay so where they are made once: 4 times as many as weights have to be kept.
    """
    narrow = is_narrow(dtype)
    return {"T": c_type(dtype), "SAME": int(not narrow), "NARROW_FILTER": int(narrow and prepared)}


def filter_call(
    f: Filtering,
    rows: tuple[int, int],
    panel: int,
    panel_bytes: int,
    defines: Mapping[str, str | int | float],
) -> KernelCall:
    """The kernel that transforms the weights of some rows."""
    panels = -(-(rows[1] - rows[0]) // panel)
    numbers = (rows[0], f.rows, f.channels, f.weight_row, f.weight_channel, int(f.reversed))
    return KernelCall(
        family="winograd",
        entry="winograd_filter",
        args=(inp(1), scratch(0), *map(i32, numbers)),
        global_size=(panels, -(-f.channels // SPAN)),
        local_size=(1, 1),
        defines=defines,
        bytes=f.item * f.channels * (rows[1] - rows[0]) * TAPS + panels * panel_bytes,
        prepares=True,
    )


def product_call(
    f: Filtering,
    call: OpCall,
    rows: tuple[int, int],
    d: Division,
    slots: int,
    slot: int,
    depth: int,
    group: int,
    defines: Mapping[str, str | int | float],
) -> KernelCall:
    """The kernel that transforms x, multiplies, transforms back and writes some rows."""
    x, y = call.input(0), call.output(0)
    even = -(-f.channels // -(-f.channels // depth))
    numbers = (
        int(f.bias is not None),
        *rows,
        f.rows,
        d.row_block,
        f.channels,
        f.tiles,
        d.block,
        replace(d, rows=rows[1] - rows[0]).tasks,
        even,
        group,
        slot,
        x.size,
        *f.in_size,
        *f.out_size,
        *f.pads,
    )
    share = rows[1] - rows[0]
    moved = x.nbytes + y.nbytes // f.rows * share + 4 * POINTS * f.channels * share
    return KernelCall(
        family="winograd",
        entry="winograd",
        args=(inp(0), scratch(0), f.bias or inp(0), out(0), scratch(1), *map(i32, numbers)),
        global_size=(slots,),
        local_size=(1,),
        defines=defines,
        # The multiplications really done: a quarter of what a convolution counts.
        flop=2 * POINTS * f.channels * share * f.tiles,
        bytes=moved,
        finishes="values",
    )
