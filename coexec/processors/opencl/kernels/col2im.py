"""Gradients of a convolution's input as a product and the sum of its rows (col2im.cl).

Where weights change every step, packing them costs: for products of gathered columns (packed.cl)
they are turned, element by element, by a kernel of its own. Here rows of the product are what lies
side by side in the weights, and each task packs its own, so that one launch does all. Sums that are
kept before they meet cost time by column: it pays where columns are few (batch 1, small planes).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
    HALF,
    DeviceFacts,
    KernelCall,
    Lowering,
    c_type,
    ceil_to,
    i32,
    inp,
    out,
    scratch,
)
from coexec.processors.opencl.kernels.conv_products import stride_phases
from coexec.processors.opencl.kernels.packed_division import even_blocks
from coexec.processors.opencl.kernels.window import Window, refuse_convolution

SPACE: Mapping[str, tuple[int, ...]] = {
    "MR": (6, 12, 4),
    "NV": (2, 1, 3),
    "DEPTH": (256, 128, 512),
    "SLOTS": (4, 8, 2),
}
"""Register tile (MR rows, NV vectors of positions), steps of the sum in a panel, tasks in work per
compute unit."""

OPERATORS = ("coexec::ConvInputGrad", "ConvTranspose")
PAD = 16
"""Elements behind packed tiles and around sums (col2im.cl)."""
ITEM = 4
MOST_SUMS = 1 << 16
"""Elements of a task's sums, which are to stay in a core's cache."""
MOST_PIECE = 1024
"""Positions of a piece of a pointwise convolution."""

PACK_COST, COPY_COST, BACK_COST = 8, 3, 12
"""Time of an element of the weights to be packed, of a panel to be copied, and of a sum to be kept
and added to X, in multiplications. All costs were measured on 64 to 2048 channels at 7 x 7 to
56 x 56, both runtimes: the ratio of both variants' times comes out within a tenth."""
IDLE_TASKS = 0.5
"""Tasks for which a compute unit waits at the end."""
TURN_COST, GATHER_COST, LAUNCH_COST = 40, 4, 1 << 20
"""Time of packed.cl for an element of the weights to be turned, of a panel to be gathered, and for
each kernel beyond the first, in multiplications."""


@dataclass(frozen=True)
class Division:
    """Tasks of ``block`` channels and ``sheets`` sheets of ``width`` columns (whole vectors)."""

    window: Window
    images: int
    pieces: int
    positions: int
    width: int
    block: int
    sheets: int
    tile: tuple[int, int]

    @property
    def tasks(self) -> int:
        blocks = -(-self.window.in_channels // self.block)
        return blocks * -(-self.images * self.pieces // self.sheets)

    @property
    def rows(self) -> int:
        """Rows of a task, whole tiles."""
        return ceil_to(self.block * self.window.taps, self.tile[0])

    @property
    def pitch(self) -> int:
        """Columns of a task, whole panels."""
        return ceil_to(self.sheets * self.width, self.tile[1])

    def time(self, units: int) -> float:
        """Of all tasks on so many compute units, in multiplications."""
        step = self.rows * (self.pitch + PACK_COST) + COPY_COST * self.pitch
        task = self.window.out_channels * step + BACK_COST * self.rows * self.pitch
        return task * (self.tasks / units + IDLE_TASKS)


def refuse(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why there is no such product or its sums leave the cache, else ``None``."""
    if call.identifier not in OPERATORS:
        return "only gradients of the input add up rows of a product"
    refusal = refuse_convolution(call, facts)
    if refusal:
        return refusal
    if call.output(0).dtype not in (np.float32, HALF):
        return f"{call.output(0).dtype.name}: sums are float32"
    if call.constant(1) is not None:
        return "weights that never change are turned once"
    if facts.unit_kind != "cpu":
        return "a task needs a cache of its own"
    return refuse_window(Window.of(call), facts)


def refuse_window(w: Window, facts: DeviceFacts) -> str | None:
    """Why a window does not fit, else ``None``."""
    if w.groups > 1:
        return "groups"
    if not w.pixels * w.out_channels:
        return "nothing to multiply"
    if not w.pointwise and w.taps * w.pixels > MOST_SUMS // 2:
        return f"sums of {w.taps} taps at {w.pixels} positions leave the cache"
    params = {name: values[0] for name, values in SPACE.items()} | dict(suited_to(facts))
    units, d = facts.compute_units, divide(w, facts, params)
    if d.time(units) * units > packed_time(w, d.tile):
        return f"{w.batch * w.pixels} columns: sums that are kept cost more than weights turned"
    return None


def packed_time(w: Window, tile: tuple[int, int]) -> float:
    """Of products of gathered columns (packed.cl) on one compute unit, in multiplications."""
    axes = zip(w.in_size, w.kernel, w.strides, w.pads, w.dilations, strict=True)
    phases = prod(sum(p.taps > 0 for p in stride_phases(*numbers)) for numbers in axes)
    launches = 2 * phases if prod(w.strides) > 1 else 1
    rows, columns = ceil_to(w.in_channels, tile[0]), ceil_to(w.batch * w.pixels, tile[1])
    step = rows * (columns + TURN_COST) + GATHER_COST * columns
    return w.out_channels * w.taps * step + LAUNCH_COST * launches


def lanes_of(facts: DeviceFacts) -> int:
    """Floats of a vector."""
    return 16 if facts.vector_bytes >= 64 else 8


def suited(_call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """Tiles of registers for 32 registers of 64 bytes; else those for 16 of 32 bytes hold."""
    return suited_to(facts)


def suited_to(facts: DeviceFacts) -> Mapping[str, int]:
    """The same for every call."""
    return {"MR": 12} if facts.vector_bytes >= 64 else {}


def divisions(w: Window, tile: tuple[int, int], lanes: int) -> Iterator[Division]:
    """Those whose sums fit a cache, or at least the smallest one."""
    pieces = -(-w.pixels // MOST_PIECE) if w.pointwise else 1
    positions = ceil_to(-(-w.pixels // pieces), lanes) if pieces > 1 else w.pixels
    pieces = -(-w.pixels // positions)
    width = ceil_to(positions, lanes)
    for sheets in even_blocks(w.batch * pieces, w.batch * pieces):
        for block in even_blocks(w.in_channels, w.in_channels):
            d = Division(w, w.batch, pieces, positions, width, block, sheets, tile)
            if d.rows * d.pitch <= MOST_SUMS or (sheets, block) == (1, 1):
                yield d


def divide(w: Window, facts: DeviceFacts, params: Mapping[str, int]) -> Division:
    """The fastest division."""
    lanes = lanes_of(facts)
    return _fastest(w, (params["MR"], params["NV"] * lanes), lanes, facts.compute_units)


@lru_cache(maxsize=4096)
def _fastest(w: Window, tile: tuple[int, int], lanes: int, units: int) -> Division:
    """Asked both when a call is accepted and when it is lowered."""
    return min(divisions(w, tile, lanes), key=lambda d: d.time(units))


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One kernel that packs, multiplies and adds."""
    if call.output(0).size == 0:
        return Lowering(())
    w = Window.of(call)
    d = divide(w, facts, params)
    depth = -(-w.out_channels // -(-w.out_channels // params["DEPTH"]))
    slot = slot_elements(d, depth)
    slots = min(d.tasks, facts.compute_units * params["SLOTS"])
    has_bias = call.has_input(2)
    numbers = (
        int(has_bias),
        int(w.pointwise),
        w.batch,
        w.out_channels,
        w.in_channels,
        depth,
        d.block,
        d.sheets,
        d.pieces,
        d.positions,
        d.pitch,
        d.tasks,
        slot,
    )
    window = (*w.in_size, *w.out_size, *w.kernel, *w.strides, *w.pads, *w.dilations)
    operands = (inp(0), inp(1), inp(2) if has_bias else inp(0), out(0), scratch(0))
    kernel = KernelCall(
        family="col2im",
        entry="col2im",
        args=(*operands, *map(i32, (*numbers, *window))),
        global_size=(slots,),
        local_size=(1,),
        defines={
            "T": c_type(call.output(0).dtype),
            "SAME": int(call.output(0).dtype != HALF),
            "V": lanes_of(facts),
            "MR": params["MR"],
            "NV": params["NV"],
        },
        flop=2 * w.batch * w.pixels * w.out_channels * w.in_channels * w.taps,
        bytes=call.input(0).nbytes + call.input(1).nbytes + call.output(0).nbytes,
    )
    return Lowering((kernel,), (slots * slot * ITEM,))


def slot_elements(d: Division, depth: int) -> int:
    """Elements of a slot: a panel, packed rows, sums, lists of taps."""
    w = d.window
    rows, columns = d.tile
    packed = d.rows // rows * ceil_to(depth * rows + PAD, PAD)
    lists = prod(w.in_size[:2]) * (1 + prod(w.kernel[:2]))
    sums = d.rows * d.pitch + 2 * PAD
    return ceil_to(depth * columns + packed + sums + lists, PAD)
