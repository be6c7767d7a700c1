"""Pooling of 3 x 3 windows at stride 2 on CPUs, straight from rows of X: ``pool_threes.cl``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.pool_geometry import PoolGeometry
from coexec.processors.opencl.cnumbers import compute_type, mask_type
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    Lowering,
    c_type,
    i32,
    scratch,
)
from coexec.processors.opencl.kernels.pool_fixed import geometry, small_window_of_floats, tensors_of

SPACE: Mapping[str, tuple[int, ...]] = {"SHARES": (16, 8, 4)}
"""Shares of the planes per compute unit."""

LEAST_WINDOWS = 2
"""Windows along each axis: the first and the last of them have rules of their own."""

HELD_MAXIMA = 4
"""Lines that the gradient of maxima holds of a row: flow, maxima and two masks."""

APART = 32
"""Scratch of a work-item is a multiple of so many elements: no line of a cache has two owners."""


def refuse_threes(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why a call that pooling kernels take is not one of 3 x 3 windows in twos, else ``None``."""
    refusal = small_window_of_floats(call, facts)
    if refusal:
        return refusal
    g = geometry(call)
    if g.kernel != (3, 3) or g.strides != (2, 2) or g.dilations != (1, 1):
        return "windows are not of 3 x 3 elements at stride 2"
    if max(g.pads_begin) > 1 or any(_reach(g, axis) > g.in_size[axis] for axis in (0, 1)):
        return "windows reach out of X by more than one element"
    if min(g.out_size) < LEAST_WINDOWS:
        return f"fewer than {LEAST_WINDOWS} windows along an axis"
    return None


def _reach(g: PoolGeometry, axis: int) -> int:
    """The element that the last tap of the last window of an axis reads."""
    return 2 * g.out_size[axis] - g.pads_begin[axis]


def _ends(g: PoolGeometry, axis: int, include_pad: bool) -> tuple[int, int]:
    """Elements that an average divides by along an axis, of its first and of its last window."""
    size, pad = g.in_size[axis], g.pads_begin[axis]
    beyond = _reach(g, axis) >= size + (g.pads_end[axis] if include_pad else 0)
    return 3 - (0 if include_pad else pad), 3 - int(beyond)


def _padded(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def lower_threes(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One kernel for maxima, averages or the gradient of either."""
    if call.output(0).size == 0:
        return Lowering(())
    g, dtype = geometry(call), call.input(0).dtype
    gradient, maximum = call.op_type.endswith("Grad"), call.op_type.startswith("Max")
    sums = np.dtype(np.float32) if dtype == np.float16 else dtype
    widest = max(facts.vector_bytes, 16) // sums.itemsize
    planes, windows = g.batch * g.channels, g.out_size[1]
    lanes = min(widest, 1 << (windows.bit_length() - 1))
    held = 2 * (HELD_MAXIMA if gradient and maximum else 1) * _padded(windows, lanes)
    slot = _padded(held + (3 * windows + 2 if gradient else windows), APART)
    include_pad = bool(call.attribute("count_include_pad", 0))
    counts = [count for axis in (0, 1) for count in _ends(g, axis, include_pad)]
    numbers = (planes, slot, *g.in_size, *g.out_size, g.pads_begin[0], *counts)
    slots = min(facts.compute_units * params["SHARES"], planes)
    kernel = KernelCall(
        "pool_threes",
        "pool_threes_grad" if gradient else "pool_threes",
        (*tensors_of(call), scratch(0), *map(i32, numbers)),
        (slots,),
        (1,),
        {
            "T": c_type(dtype),
            "ACC": compute_type(dtype),
            "I": mask_type(sums),
            "V": lanes,
            "SAME": int(dtype == sums),
            "GRAD": int(gradient),
            "MAXIMUM": int(maximum),
            "P2": g.pads_begin[1],
            "RIGHT": int(_reach(g, 1) == g.in_size[1]),
        },
    )
    return Lowering((kernel,), (slots * slot * sums.itemsize,))
