"""Nearest neighbours of twice the size on CPUs, row by row: ``resize_twice.cl``."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.resize_geometry import AxisMap, ResizeGeometry
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    Lowering,
    i32,
    inp,
    out,
)

SPACE: Mapping[str, tuple[int, ...]] = {"SHARES": (8, 4, 16)}
"""Shares of the work per compute unit."""

LEAST_PAIRS = 2
"""Pairs of elements in a row: one vector."""

BITS = {1: "uchar", 2: "ushort", 4: "uint", 8: "ulong"}
"""What elements of so many bytes are moved as."""


def refuse_twice(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why a call that the general kernel takes does not just repeat elements, else ``None``."""
    if facts.unit_kind != "cpu":
        return "lone work-items suit processors with few of them"
    g = ResizeGeometry.of(call)
    last = len(g.in_shape) - 1
    axes = [along.axis for along in g.axes]
    if call.op_type != "Resize" or axes not in ([last], [last - 1, last]):
        return "other axes than those of rows"
    if not all(_doubles(g, along) for along in g.axes):
        return "elements are not each taken twice"
    if call.output(0).size and g.out_shape[last] // 2 < LEAST_PAIRS:
        return f"rows of fewer than {LEAST_PAIRS} pairs"
    return None


def _doubles(g: ResizeGeometry, along: AxisMap) -> bool:
    """Whether output o is element o // 2 of the operand."""
    if g.mode != "nearest" or along.out_size not in (2 * along.in_size, 2 * along.in_size - 1):
        return False
    indices, _ = g.taps(along)
    halves = np.arange(along.out_size) // 2
    return bool((indices[:, 0] == halves).all() and not g.outside(along).any())


def lower_twice(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One kernel; rows are doubled in the same pass."""
    if call.output(0).size == 0:
        return Lowering(())
    g, itemsize = ResizeGeometry.of(call), call.input(0).dtype.itemsize
    tall = len(g.axes) > 1
    rows = prod(g.in_shape[:-1])
    heights = (g.in_shape[-2], g.out_shape[-2]) if tall else (rows, rows)
    pairs = g.out_shape[-1] // 2
    widest = min(max(facts.vector_bytes, 16) // itemsize, 16)
    kernel = KernelCall(
        "resize_twice",
        "resize_twice",
        (
            inp(0),
            out(0),
            *map(i32, (rows, heights[0], g.in_shape[-1], heights[1], g.out_shape[-1])),
        ),
        (min(facts.compute_units * params["SHARES"], rows),),
        (1,),
        {
            "T": BITS[itemsize],
            "TALL": int(tall),
            "V": min(widest, 1 << (pairs.bit_length() - 1)),
        },
    )
    return Lowering((kernel,))
