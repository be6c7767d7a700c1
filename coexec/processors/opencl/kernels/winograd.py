"""3 x 3 convolutions by minimal filtering on tiles of 4 x 4 results (winograd.cl).

F(4 x 4, 3 x 3) of Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", arXiv
1509.09308: 36 multiplications where a convolution counts 144, at some loss of accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    Lowering,
    Operand,
    ceil_to,
    i32,
    inp,
    out,
    scratch,
)
from coexec.processors.opencl.kernels.window import Window, refuse_convolution

SPACE: Mapping[str, tuple[int, ...]] = {
    "MR": (6, 12, 4),
    "NV": (2, 1, 3),
    "BLOCK": (24, 48, 12),
    "DEPTH": (128, 64, 256),
    "SLOTS": (1, 2),
}
"""Register tile (MR tiles of the image, NV vectors of channels), tiles in work, channels summed in
registers, tasks in work per compute unit."""

POINTS, TAPS, TILE, PATCH, GROUP, SPAN, PAD = 36, 9, 4, 6, 8, 8, 16
FILTER_BYTES = 8 << 20
"""Transformed weights at a time: they stay in a shared cache. More rows take several rounds."""

LEAST_CHANNELS, LEAST_TILES = 16, 8
LEAST_FILLED = 0.5
"""Results among the positions of all tiles, below which too many products are for nothing."""


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

    @classmethod
    def of(cls, call: OpCall) -> Filtering:
        """What Conv, ConvTranspose or ConvInputGrad filters."""
        w = Window.of(call)
        i, o, p = w.in_size[1:], w.out_size[1:], w.pads[1:]
        bias = inp(2) if call.has_input(2) else None
        k, c = w.out_channels, w.in_channels
        if call.identifier == "Conv":
            return cls(w.batch, k, c, i, o, p, c * TAPS, TAPS, False, bias)
        back = (2 - p[0], 2 - p[1])
        return cls(w.batch, c, k, o, i, back, TAPS, c * TAPS, True, bias)

    @property
    def tiles(self) -> int:
        return self.images * -(-self.out_size[0] // TILE) * -(-self.out_size[1] // TILE)


def refuse(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why tiles of 4 x 4 results do not fit or do not pay, else ``None``."""
    if call.identifier == "coexec::ConvWeightGrad":
        return "the gradient of the weights has variants of its own"
    refusal = refuse_convolution(call, facts) or refuse_window(Window.of(call), facts)
    if refusal:
        return refusal
    if call.output(0).dtype != np.float32:
        return f"{call.output(0).dtype.name}: transforms are for float32"
    f = Filtering.of(call)
    return refuse_tiles(f.tiles, f.images * f.out_size[0] * f.out_size[1])


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


def refuse_tiles(tiles: int, positions: int) -> str | None:
    """Why so many tiles for so many positions do not pay, else ``None``."""
    if tiles < LEAST_TILES:
        return f"fewer than {LEAST_TILES} tiles: transforms of weights cost more than they save"
    if positions < LEAST_FILLED * tiles * TILE * TILE:
        return "tiles are mostly empty"
    return None


def suited(_call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """Tiles of registers for 32 registers of 64 bytes; else those for 16 of 32 bytes hold."""
    return {"MR": 12, "BLOCK": 48} if facts.vector_bytes >= 64 else {}


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Transformed weights and products with them, as many rows at a time as the scratch holds."""
    if call.output(0).size == 0:
        return Lowering(())
    f = Filtering.of(call)
    lanes = 16 if facts.vector_bytes >= 64 else 8
    panel = params["NV"] * lanes
    panel_bytes = 4 * POINTS * (f.channels * panel + PAD)
    panels = -(-f.rows // panel)
    rounds = -(-panels // max(1, FILTER_BYTES // panel_bytes))
    step = -(-panels // rounds)
    defines = {"V": lanes, "MR": params["MR"], "NV": params["NV"]}
    block = tile_block(f.tiles, facts, params)
    slots = min(-(-f.tiles // block), facts.compute_units * params["SLOTS"])
    slot = slot_elements(block, f.channels, panel, params["MR"])
    calls: list[KernelCall] = []
    for first in range(0, panels, step):
        rows = (first * panel, min((first + step) * panel, f.rows))
        calls.append(filter_call(f, rows, defines))
        calls.append(product_call(f, call, rows, block, slots, slot, params["DEPTH"], defines))
    return Lowering(tuple(calls), (step * panel_bytes, slots * slot * 4))


def tile_block(tiles: int, facts: DeviceFacts, params: Mapping[str, int]) -> int:
    """Tiles of a task: at most BLOCK, so that the busiest compute unit has least to do."""
    height = params["MR"]

    def work(block: int) -> tuple[int, int]:
        tasks = -(-tiles // block)
        return -(-tasks // facts.compute_units) * -(-block // height), -block

    return min(range(min(height, params["BLOCK"]), params["BLOCK"] + 1), key=work)


def slot_elements(block: int, channels: int, panel: int, height: int) -> int:
    """Floats of a slot of winograd.cl: products, masks, places, a stage, and patches."""
    pitch = ceil_to(block, GROUP)
    places = pitch * PATCH * (GROUP + 1) + GROUP * PATCH * (GROUP + 1)
    products = POINTS * (ceil_to(block, height) * panel + PAD)
    return ceil_to(products + places + POINTS * (channels * pitch + PAD) + height, 16)


def filter_call(f: Filtering, rows: tuple[int, int], defines: Mapping[str, int]) -> KernelCall:
    """The kernel that transforms the weights of some rows."""
    panel = defines["NV"] * defines["V"]
    panels = -(-(rows[1] - rows[0]) // panel)
    numbers = (rows[0], f.rows, f.channels, f.weight_row, f.weight_channel, int(f.reversed))
    return KernelCall(
        family="winograd",
        entry="winograd_filter",
        args=(inp(1), scratch(0), *map(i32, numbers)),
        global_size=(panels, -(-f.channels // SPAN)),
        local_size=(1, 1),
        defines=defines,
        bytes=4 * f.channels * ((rows[1] - rows[0]) * TAPS + panels * panel * POINTS),
        layout=True,
    )


def product_call(
    f: Filtering,
    call: OpCall,
    rows: tuple[int, int],
    block: int,
    slots: int,
    slot: int,
    depth: int,
    defines: Mapping[str, int],
) -> KernelCall:
    """The kernel that transforms x, multiplies, transforms back and writes some rows."""
    x, y = call.input(0), call.output(0)
    even = -(-f.channels // -(-f.channels // depth))
    numbers = (
        int(f.bias is not None),
        *rows,
        f.rows,
        f.channels,
        f.tiles,
        block,
        -(-f.tiles // block),
        even,
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
        args=(inp(0), scratch(0), f.bias or inp(1), out(0), scratch(1), *map(i32, numbers)),
        global_size=(slots,),
        local_size=(1,),
        defines=defines,
        # The multiplications really done: a quarter of what a convolution counts.
        flop=2 * POINTS * f.channels * share * f.tiles,
        bytes=moved,
    )
