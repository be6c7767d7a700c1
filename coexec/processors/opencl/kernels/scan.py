"""Accumulation along an axis: CumSum, CumProd, coexec::CumProdGrad."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.scan import scan_axis
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Scalar,
    Variant,
    c_type,
    ceil_to,
    i32,
    inp,
    out,
    refuse_types,
    scratch,
)

ACCUMULATIONS = {"CumSum": ("((a) + (b))", 0), "CumProd": ("((a) * (b))", 1)}
"""OpenCL C expression and neutral element."""

SHORTEST_BLOCK = 256


def _accumulator(call: OpCall) -> np.dtype[np.generic]:
    dtype = call.input(0).dtype
    return np.dtype(np.float32) if dtype.name == "float16" else dtype


def _defines(call: OpCall) -> dict[str, str | int | float]:
    return {
        "T": c_type(call.input(0).dtype),
        "A": c_type(_accumulator(call)),
        "EXCLUSIVE": int(bool(call.attribute("exclusive", 0))),
        "REVERSE": int(bool(call.attribute("reverse", 0))),
    }


def _extent(call: OpCall) -> tuple[int, int, int]:
    """(lanes, n, inner) of a call."""
    data, axis = call.input(0), scan_axis(call)
    inner = prod(data.shape[axis + 1 :])
    return prod(data.shape[:axis]) * inner, data.shape[axis], inner


def _scan_defines(call: OpCall) -> dict[str, str | int | float]:
    expression, neutral = ACCUMULATIONS[call.op_type]
    return {**_defines(call), "APPLY(a, b)": expression, "NEUTRAL": neutral}


def lower_naive(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One work-item per lane."""
    lanes, n, inner = _extent(call)
    if not lanes * n:
        return Lowering(())
    local = params["LOCAL"]
    grid = (ceil_to(lanes, local), 1)
    if call.op_type == "CumProdGrad":
        args: tuple[Argument, ...] = (inp(0), inp(1), out(0), i32(lanes), i32(n), i32(inner))
        kernel = KernelCall("scan", "prod_grad", args, grid[:1], (local,), _defines(call))
        return Lowering((kernel,))
    # Without starts the sums are never read: any buffer does.
    scan_args: tuple[Argument, ...] = (inp(0), inp(0), out(0), *_sizes(lanes, n, inner, n))
    return Lowering((KernelCall("scan", "scan", scan_args, grid, (local, 1), _scan_defines(call)),))


def _sizes(*values: int) -> tuple[Scalar, ...]:
    return tuple(i32(v) for v in values)


def lower_blocked(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Few long lanes are divided into blocks, so that the device is filled."""
    lanes, n, inner = _extent(call)
    blocks = min(_blocks(call, facts, params["PER_UNIT"]), -(-n // SHORTEST_BLOCK))
    block = -(-n // blocks)
    blocks = -(-n // block)
    local = min(params["LOCAL"], 1 << (lanes - 1).bit_length())
    grid, group, defines = (ceil_to(lanes, local), blocks), (local, 1), _scan_defines(call)
    sizes = _sizes(lanes, n, inner, block)
    calls = (
        KernelCall("scan", "totals", (inp(0), scratch(0), *sizes), grid, group, defines),
        KernelCall(
            "scan", "starts", (scratch(0), *_sizes(lanes, blocks)), grid[:1], (local,), defines
        ),
        KernelCall(
            "scan",
            "scan",
            (inp(0), scratch(0), out(0), *sizes),
            grid,
            group,
            {**defines, "STARTED": 1},
        ),
    )
    return Lowering(calls, (lanes * blocks * _accumulator(call).itemsize,))


def _blocks(call: OpCall, facts: DeviceFacts, per_unit: int) -> int:
    lanes, _, _ = _extent(call)
    return max(2, facts.compute_units * per_unit // max(lanes, 1))


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    return refuse_types((call.inputs[0], *call.outputs), facts)


def applies_blocked(call: OpCall, facts: DeviceFacts) -> str | None:
    if call.op_type == "CumProdGrad":
        return "its two passes run along whole lanes"
    lanes, n, _ = _extent(call)
    if n < 2 * SHORTEST_BLOCK or lanes == 0:
        return f"{n} elements are too few to divide"
    if lanes >= 64 * facts.compute_units:
        return f"{lanes} lanes fill the device"
    return applies(call, facts)


FAMILY = KernelFamily(
    "scan",
    ("CumSum", "CumProd", "coexec::CumProdGrad"),
    (
        Variant(
            "blocked", lower_blocked, applies_blocked, {"PER_UNIT": (16, 64), "LOCAL": (8, 32)}
        ),
        Variant("naive", lower_naive, applies, {"LOCAL": (8, 64)}),
    ),
)
