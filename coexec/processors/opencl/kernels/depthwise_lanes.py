"""Convolutions of single channels where planes are small: channels in a vector's lanes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    Lowering,
    c_type,
    i32,
    inp,
    out,
    scratch,
)
from coexec.processors.opencl.kernels.products import accumulator
from coexec.processors.opencl.kernels.window import Window

LARGEST_PLANE = 144
"""Elements of a plane: as vectors, those of x and y fit the first cache."""

MOST_SLOTS = 16
"""Work-items per compute unit, so that a slow one does not hold up the others."""

TRANSPOSED = ("ConvTranspose", "coexec::ConvInputGrad")


def suits(call: OpCall, w: Window, lanes: int) -> bool:
    """Whether vectors of ``lanes`` channels are faster than vectors along rows.

    Transposing planes costs more than summing over 3 x 3 taps. It pays for the gradient of weights
    (whose sums of rows are short), for strides, and where rows leave half a vector unused.
    """
    if w.outer != 1 or w.in_channels < lanes or max(w.pixels, w.in_pixels) > LARGEST_PLANE:
        return False
    strided, short = w.strides != (1, 1, 1), w.out_size[2] <= lanes // 2
    if call.identifier in TRANSPOSED:
        return short and not strided and min(_reversed(w).pads) >= 0
    return call.identifier == "coexec::ConvWeightGrad" or strided or short


def lower(call: OpCall, w: Window, lanes: int, facts: DeviceFacts) -> Lowering:
    """One kernel: the convolution, or the gradient of its input or of its weights."""
    weight = call.identifier == "coexec::ConvWeightGrad"
    reverse = call.identifier in TRANSPOSED
    w = _reversed(w) if reverse else w
    (_, k1, k2), (_, s1, s2), (_, d1, d2) = w.kernel, w.strides, w.dilations
    (i1, i2), (o1, o2), (p1, p2) = w.in_size[1:], w.out_size[1:], w.pads[1:]
    dtype = call.output(0).dtype
    sums = np.dtype(accumulator(dtype))
    rows = max((o1 - 1) * s1 + (k1 - 1) * d1 + 1, i1 + p1)
    pitch = max((o2 - 1) * s2 + (k2 - 1) * d2 + 1, i2 + p2)
    slot = (rows * pitch + w.pixels + 2 * w.taps) * lanes
    tasks = -(-w.in_channels // lanes) * (1 if weight else w.batch)
    slots = min(facts.compute_units * MOST_SLOTS, tasks)
    operands: tuple[Argument, ...] = (inp(0), inp(1), out(0))
    if not weight:
        bias = call.has_input(2)
        operands = (inp(0), inp(1), inp(2) if bias else inp(1), out(0), i32(int(bias)))
    origin = ((k1 - 1) * d1 * pitch + (k2 - 1) * d2) if reverse else 0
    sign = -1 if reverse else 1
    numbers = (w.batch, tasks, w.in_channels, slot, rows * pitch, pitch, i1, i2, o1, o2)
    steps = (s1, s2, p1, p2, sign * d1, sign * d2, origin)
    sizes = (*numbers, *steps, *((k1, k2) if weight else ()))
    taps = {"WEIGHT_GRADIENT": 1} if weight else {"K1": k1, "K2": k2}
    types = {"T": c_type(dtype), "ACC": c_type(sums)}
    kernel = KernelCall(
        "depthwise_lanes",
        "depthwise_lanes_weight" if weight else "depthwise_lanes",
        (*operands, scratch(0), *map(i32, sizes)),
        (slots,),
        (1,),
        {**types, "V": lanes, "SAME": int(dtype == sums), **taps},
        finishes="nothing" if weight else "tensors",
    )
    return Lowering((kernel,), (slots * slot * sums.itemsize,))


def _reversed(w: Window) -> Window:
    """The window in which X's gradient is the convolution of Y's with reversed taps."""
    reach = [(k - 1) * d - p for k, d, p in zip(w.kernel, w.dilations, w.pads, strict=True)]
    a, b, c = reach
    return replace(w, in_size=w.out_size, out_size=w.in_size, pads=(a, b, c))
