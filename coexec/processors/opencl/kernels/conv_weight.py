"""The gradient of a convolution's weights by vectors along output positions (packed.cl: dots)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
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
from coexec.processors.opencl.kernels.packed import MASKS, VECTOR_BYTES, matches
from coexec.processors.opencl.kernels.products import accumulator
from coexec.processors.opencl.kernels.window import Window, refuse_convolution

SPACE: Mapping[str, tuple[int, ...]] = {
    "LENGTH": (512, 256, 1024),
    "WIDTH": (90, 45, 180),
    "HEIGHT": (256, 64, 512),
    "SLOTS": (4, 2, 8),
}
"""Positions in a panel, rows of B and of y in a task, tasks in work per compute unit."""

TILE_ROWS, TILE_COLUMNS, TILE_SUMS = 4, 5, 32


def refuse(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why this variant does not fit, else ``None``."""
    if call.identifier != "coexec::ConvWeightGrad":
        return "only for the gradient of the weights"
    return refuse_convolution(call, facts) or matches(call.output(0).dtype)


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One kernel over blocks of output channels and of input channels."""
    result = call.output(0)
    if result.size == 0:
        return Lowering(())
    w, sums = Window.of(call), np.dtype(accumulator(result.dtype))
    lanes = VECTOR_BYTES // sums.itemsize
    direct = result.dtype == sums and w.pixels % lanes == 0
    block = even_block(w.inner, max(1, params["WIDTH"] // w.taps))
    height = even_block(w.outer, params["HEIGHT"])
    tasks = w.groups * -(-w.inner // block) * -(-w.outer // height)
    while tasks < facts.compute_units and height > TILE_ROWS:
        height = ceil_to(-(-height // 2), TILE_ROWS)
        tasks = w.groups * -(-w.inner // block) * -(-w.outer // height)
    slot = slot_elements(block * w.taps, height, params["LENGTH"] + lanes, direct)
    slots = min(tasks, facts.compute_units * params["SLOTS"])
    numbers = (
        w.outer,
        height,
        w.inner,
        block,
        w.batch * w.pixels,
        call.input(0).size,
        call.input(1).size,
        w.in_channels * w.in_pixels,
        w.out_channels * w.pixels,
        slot,
        tasks,
        *w.in_size,
        *w.out_size,
        *w.kernel,
        *w.strides,
        *w.pads,
        *w.dilations,
    )
    kernel = KernelCall(
        family="packed",
        entry="dots",
        args=(inp(0), inp(1), out(0), scratch(0), *map(i32, numbers)),
        global_size=(slots,),
        local_size=(1,),
        defines={
            "T": c_type(result.dtype),
            "ACC": c_type(sums),
            "V": lanes,
            "MASK": MASKS[sums.name],
            "SAME": int(result.dtype == sums),
            "DOTS": 1,
            "DIRECT": int(direct),
            "LENGTH": params["LENGTH"],
        },
    )
    return Lowering((kernel,), (slots * slot * sums.itemsize,))


def even_block(size: int, most: int) -> int:
    """The block of at most ``most`` that divides ``size`` most evenly."""
    return -(-size // max(1, -(-size // most)))


def slot_elements(width: int, height: int, stride: int, direct: bool) -> int:
    """Elements of a slot: panel of B, panel of y unless read in place, sums of all tiles."""
    tiles = -(-width // TILE_COLUMNS) * -(-height // TILE_ROWS)
    return (width + (0 if direct else height)) * stride + tiles * TILE_SUMS
