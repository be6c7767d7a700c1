"""Products whose operands are both contiguous along the sum (dots.cl).

The gradient of a convolution's weights sums over output positions, along which X and the gradient
of Y are contiguous; a matrix times a transposed matrix is the same with one image and one tap.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    Lowering,
    Operand,
    Scalar,
    c_type,
    ceil_to,
    i32,
    scratch,
)
from coexec.processors.opencl.kernels.packed import MASKS, bounded_slots
from coexec.processors.opencl.kernels.packed_operands import Bias
from coexec.processors.opencl.kernels.products import accumulator
from coexec.processors.opencl.kernels.window import Window

SPACE: Mapping[str, tuple[int, ...]] = {
    "LENGTH": (512, 256, 1024, 4096),
    "WIDTH": (90, 45, 180),
    "HEIGHT": (256, 64, 512),
    "SLOTS": (4, 2, 8),
}
"""Positions in a panel, rows of B and of y in a task, tasks in work per compute unit."""

LEAST_LANES = 4
WIDE_LANES = 16


@dataclass(frozen=True)
class Tile:
    """Rows of y, rows of B, and elements that keep the sums (dots.cl)."""

    rows: int
    columns: int
    sums: int


def tile_of(lanes: int, rows: int) -> Tile:
    """Vectors of 16 floats come with 32 registers, shorter ones with 16; y may have one row."""
    if rows == 1:
        return Tile(1, 4, lanes)
    return Tile(4, 5, 32) if lanes == WIDE_LANES else Tile(3, 4, 16)


def lanes_of(sums: np.dtype[np.generic], facts: DeviceFacts) -> int:
    """Elements in a register; four where the device computes on scalars."""
    return max(LEAST_LANES, facts.vector_bytes // sums.itemsize)


@dataclass(frozen=True)
class Dots:
    """W[m, (c, tap)] = alpha * sum over positions of y[m] * (x[c] moved by the tap) + beta * bias.

    ``sizes`` are the elements of the operands x and y.
    """

    dtype: np.dtype[np.generic]
    window: Window
    x: Operand
    y: Operand
    result: Operand
    sizes: tuple[int, int]
    bias: Bias | None = None
    alpha: float = 1.0
    beta: float = 1.0


def lower_dots(d: Dots, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One kernel over blocks of output channels and of input channels."""
    w, sums = d.window, np.dtype(accumulator(d.dtype))
    lanes = lanes_of(sums, facts)
    tile = tile_of(lanes, w.outer)
    direct = int(w.pixels % lanes == 0)
    if direct and w.pointwise:
        direct = 2
    block, height, tasks = divided(w, tile, facts, params)
    slot = slot_elements(tile, block * w.taps, height, params["LENGTH"] + lanes, direct)
    slots = bounded_slots(tasks, slot * sums.itemsize, facts, params)
    bias = d.bias or Bias(d.x, 0, 0)
    rows = (int(d.bias is not None), bias.row, bias.column, w.outer, height, w.inner, block)
    images = (w.in_channels * w.in_pixels, w.out_channels * w.pixels)
    numbers = (*rows, w.batch * w.pixels, *d.sizes, *images, slot, tasks, *window_numbers(w))
    operands = (d.x, d.y, bias.operand, d.result, scratch(0))
    factors = (Scalar(d.alpha, sums.name), Scalar(d.beta, sums.name))
    kernel = KernelCall(
        family="dots",
        entry="dots",
        args=(*operands, *factors, *map(i32, numbers)),
        global_size=(slots,),
        local_size=(1,),
        defines={
            "T": c_type(d.dtype),
            "ACC": c_type(sums),
            "V": lanes,
            "MASK": MASKS[sums.name],
            "SAME": int(d.dtype == sums),
            "DIRECT": direct,
            "SINGLE": int(tile.rows == 1),
            "LENGTH": params["LENGTH"],
        },
    )
    return Lowering((kernel,), (slots * slot * sums.itemsize,))


def divided(
    w: Window, tile: Tile, facts: DeviceFacts, params: Mapping[str, int]
) -> tuple[int, int, int]:
    """Input channels and output channels of a task, and the number of tasks.

    Output channels are halved until there is a task for each compute unit.
    """
    block = even_block(w.inner, max(1, params["WIDTH"] // w.taps))
    height = even_block(w.outer, params["HEIGHT"])
    column_tasks = w.groups * -(-w.inner // block)
    while column_tasks * -(-w.outer // height) < facts.compute_units and height > tile.rows:
        height = ceil_to(-(-height // 2), tile.rows)
    return block, height, column_tasks * -(-w.outer // height)


def window_numbers(w: Window) -> tuple[int, ...]:
    """WINDOW of gather.cl."""
    return (*w.in_size, *w.out_size, *w.kernel, *w.strides, *w.pads, *w.dilations)


def even_block(size: int, most: int) -> int:
    """The block of at most ``most`` that divides ``size`` most evenly."""
    return -(-size // max(1, -(-size // most)))


def slot_elements(tile: Tile, width: int, height: int, stride: int, direct: int) -> int:
    """Elements of a slot: panels of B and y unless read in place, sums of all tiles."""
    tiles = -(-width // tile.columns) * -(-height // tile.rows)
    rows = (width if direct < 2 else 0) + (height if direct < 1 else 0)
    return rows * stride + tiles * tile.sums
