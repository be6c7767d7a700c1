"""Pooling of 2 x 2 tiles on CPUs, straight from rows of the input: ``pool_pairs.cl``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.processors.opencl.cnumbers import compute_type
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    Lowering,
    c_type,
    i32,
)
from coexec.processors.opencl.kernels.pool_fixed import geometry, small_window_of_floats, tensors_of

SPACE: Mapping[str, tuple[int, ...]] = {"SHARES": (8, 4, 16)}
"""Shares of the work per compute unit."""

LEAST_LANES = 2


def refuse_pairs(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why a call that pooling kernels take is not one of 2 x 2 tiles, else ``None``."""
    refusal = small_window_of_floats(call, facts)
    if refusal:
        return refusal
    g = geometry(call)
    tiles = g.kernel == g.strides == (2, 2) and g.dilations == (1, 1)
    halves = g.out_size == tuple(n // 2 for n in g.in_size)
    if not tiles or not halves or any(g.pads_begin):
        return "windows are not the 2 x 2 tiles of X"
    if g.out_size[1] < LEAST_LANES:
        return f"rows of fewer than {LEAST_LANES} windows"
    return None


def lower_pairs(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One kernel for maxima, averages or the gradient of either."""
    if call.output(0).size == 0:
        return Lowering(())
    g, dtype = geometry(call), call.input(0).dtype
    gradient, maximum = call.op_type.endswith("Grad"), call.op_type.startswith("Max")
    sums = np.dtype(np.float32) if dtype == np.float16 else dtype
    widest = max(facts.vector_bytes, 16) // sums.itemsize
    lines = g.batch * g.channels * g.out_size[0]
    kernel = KernelCall(
        "pool_pairs",
        "pool_pairs_grad" if gradient else "pool_pairs",
        (*tensors_of(call), *map(i32, (lines, *g.in_size, *g.out_size))),
        (min(facts.compute_units * params["SHARES"], lines),),
        (1,),
        {
            "T": c_type(dtype),
            "ACC": compute_type(dtype),
            "V": min(widest, 1 << (g.out_size[1].bit_length() - 1)),
            "SAME": int(dtype == sums),
            "GRAD": int(gradient),
            "MAXIMUM": int(maximum),
        },
    )
    return Lowering((kernel,))
