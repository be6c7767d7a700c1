"""Pointwise convolutions of few channels, and their inputs' gradients, in place (pointwise.cl).

Blocked products (packed.py) copy a panel of columns, so that rows far apart become one run, and
look up where its results lie. That pays where many terms are summed; where few are, it takes as
long as the sums. Here nothing is copied, weights that change need no packing, and a task writes
long runs.
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
    c_type,
    ceil_to,
    i32,
    inp,
    out,
    scratch,
)
from coexec.processors.opencl.kernels.packed import WIDE_VECTOR_BYTES
from coexec.processors.opencl.kernels.packed import matches as refuse_packing
from coexec.processors.opencl.kernels.products import accumulator
from coexec.processors.opencl.kernels.widen import is_narrow, widen, widened_bytes
from coexec.processors.opencl.kernels.window import Window, refuse_convolution

SPACE: Mapping[str, tuple[int, ...]] = {
    "MR": (6, 4, 8, 12),
    "NV": (2, 3, 4),
    "SPAN": (256, 512, 64, 16),
    "SLOTS": (8, 4, 16),
}
"""Register tile (MR rows, NV vectors), columns for which a task goes through its rows (at least a
tile), tasks per compute unit."""

SMALL_TILES = {(6, 2): 1.0, (4, 3): 1.05}
"""Tiles (rows, vectors) that fit 16 registers, and the time of a multiplication on each."""
WIDE_TILES = {(8, 3): 1.0, (12, 2): 1.0}
"""Those for 32 registers."""
LEAST_LANES, MOST_LANES = 4, 16
FEW, MOST_CHANNELS = 32, 256
"""Terms of a sum, or rows, up to which copying columns takes long beside the sums; terms whose
lines of X stay in the first cache from one tile of rows to the next."""
MOST_RUN = 2048
"""Columns of a task."""
MOST_PADDING = 1.2
"""Rows and columns that are computed in terms of those that there are."""


@dataclass(frozen=True)
class Pointwise:
    """A pointwise convolution in the terms of pointwise.cl.

    ``a`` are the strides of the weights between groups, rows and channels.
    """

    rows: int
    channels: int
    pixels: int
    groups: int
    images: int
    a: tuple[int, int, int]

    @classmethod
    def of(cls, call: OpCall) -> Pointwise:
        w = Window.of(call)
        group = w.outer * w.inner
        if call.identifier == "Conv":
            return cls(w.outer, w.inner, w.pixels, w.groups, w.batch, (group, w.inner, 1))
        return cls(w.inner, w.outer, w.pixels, w.groups, w.batch, (group, 1, w.inner))


@dataclass(frozen=True)
class Division:
    """Columns of a task, columns between changes of rows, rows of a task."""

    run: int
    span: int
    rows: int


def lanes_of(call: OpCall, facts: DeviceFacts) -> int:
    """Elements of a vector, also where a device computes on scalars."""
    elements = facts.vector_bytes // np.dtype(accumulator(call.output(0).dtype)).itemsize
    return min(max(elements, LEAST_LANES), MOST_LANES)


def divide(
    p: Pointwise, tile: tuple[int, int], facts: DeviceFacts, params: Mapping[str, int]
) -> Division:
    """Columns first; rows where columns alone leave compute units idle. ``tile``: rows, columns."""
    height, width = tile
    tiles, planes = -(-p.pixels // width), p.images * p.groups
    wanted = facts.compute_units * params["SLOTS"]
    most = max(1, min(MOST_RUN // width, tiles * planes // wanted))
    runs = ceil_to(-(-tiles // most), facts.compute_units)
    run = -(-tiles // min(tiles, runs))
    row_tiles = -(-p.rows // height)
    row_blocks = min(row_tiles, max(1, wanted // (tiles * planes)))
    span = max(1, min(run, params["SPAN"] // width))
    return Division(run * width, span * width, -(-row_tiles // row_blocks) * height)


def refuse(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why reading in place does not fit or does not pay, else ``None``."""
    if call.identifier == "coexec::ConvWeightGrad":
        return "the gradient of the weights sums over positions"
    refusal = refuse_convolution(call, facts) or refuse_packing(call.output(0).dtype)
    if refusal:
        return refusal
    if facts.unit_kind != "cpu":
        return "a task needs a cache of its own"
    if not Window.of(call).pointwise:
        return "more than one tap, strides or pads"
    p = Pointwise.of(call)
    if not 0 < p.channels <= MOST_CHANNELS or min(p.rows, p.channels) > FEW:
        return f"{p.rows} rows of {p.channels} channels: copying columns pays"
    return refuse_padding(p, suited(call, facts), lanes_of(call, facts))


def refuse_padding(p: Pointwise, tile: Mapping[str, int], lanes: int) -> str | None:
    """Why tiles would be too empty, else ``None``."""
    width = tile["NV"] * lanes
    computed = ceil_to(p.rows, tile["MR"]) * ceil_to(p.pixels, width)
    if p.pixels < width or computed > MOST_PADDING * p.rows * p.pixels:
        return f"{p.rows} x {p.pixels} results leave tiles empty"
    return None


def suited(call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """The register tile that wastes the least; short spans where long ones fit no first cache."""
    p, lanes = Pointwise.of(call), lanes_of(call, facts)
    tiles = WIDE_TILES if facts.vector_bytes >= WIDE_VECTOR_BYTES else SMALL_TILES

    def cost(tile: tuple[int, int]) -> float:
        rows, vectors = tile
        return tiles[tile] * ceil_to(p.rows, rows) * ceil_to(p.pixels, vectors * lanes)

    rows, vectors = min(tiles, key=cost)
    return {"MR": rows, "NV": vectors} | ({"SPAN": 16} if p.channels > FEW else {})


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One kernel; weights of 16 bits are widened before."""
    y = call.output(0)
    if y.size == 0:
        return Lowering(())
    p, lanes = Pointwise.of(call), lanes_of(call, facts)
    width = params["NV"] * lanes
    d = divide(p, (params["MR"], width), facts, params)
    bias = inp(2) if call.has_input(2) else inp(1)
    narrow, weights = is_narrow(y.dtype), call.input(1)
    numbers = (
        call.has_input(2),
        p.rows,
        p.channels,
        p.pixels,
        p.groups,
        *p.a,
        d.run,
        d.span,
        d.rows,
    )
    sums = accumulator(y.dtype)
    kernel = KernelCall(
        family="pointwise",
        entry="pointwise",
        args=(inp(0), scratch(0) if narrow else inp(1), bias, out(0), *map(i32, numbers)),
        global_size=(-(-p.pixels // d.run), -(-p.rows // d.rows), p.images * p.groups),
        local_size=(1, 1, 1),
        defines={
            "T": c_type(y.dtype),
            "ACC": c_type(np.dtype(sums)),
            "V": lanes,
            "SAME": int(sums == y.dtype.name),
            "MR": params["MR"],
            "NV": params["NV"],
        },
        flop=2 * p.images * p.groups * p.rows * p.channels * p.pixels,
        bytes=sum(kind.nbytes for kind in (*call.inputs, *call.outputs) if kind is not None),
        finishes="tensors",
    )
    if not narrow:
        return Lowering((kernel,))
    wide = widen(inp(1), weights.size, y.dtype, scratch(0))
    return Lowering((wide, kernel), (widened_bytes(weights.size, y.dtype),))
