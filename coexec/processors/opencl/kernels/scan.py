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
from coexec.processors.opencl.kernels.moves import span_of

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
    if call.op_type == "CumProdGrad":
        args: tuple[Argument, ...] = (inp(0), inp(1), out(0), i32(lanes), i32(n), i32(inner))
        grid = (ceil_to(lanes, local),)
        return Lowering((KernelCall("scan", "prod_grad", args, grid, (local,), _defines(call)),))
    return Lowering((_whole(call, 1, local),))


def _whole(call: OpCall, width: int, local: int) -> KernelCall:
    """Every lane in one block, ``width`` neighbouring ones per work-item."""
    lanes, n, inner = _extent(call)
    groups = lanes // inner * -(-inner // width)
    # Without starts the sums are never read: any buffer does.
    args: tuple[Argument, ...] = (inp(0), inp(0), out(0), *_sizes(groups, n, inner, n))
    defines = {**_scan_defines(call), "WIDTH": width}
    return KernelCall("scan", "scan", args, (ceil_to(groups, local), 1), (local, 1), defines)


def lower_lines(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Neighbouring lanes together, so that whole lines of memory are read."""
    width = span_of(_extent(call)[2], params["WIDTH"])
    return Lowering((_whole(call, width, params["LOCAL"]),))


def applies_lines(call: OpCall, facts: DeviceFacts) -> str | None:
    lanes, n, inner = _extent(call)
    if call.op_type == "CumProdGrad" or inner == 1 or not lanes * n:
        return "no lanes are neighbours"
    return applies(call, facts)


def _sizes(*values: int) -> tuple[Scalar, ...]:
    return tuple(i32(v) for v in values)


def lower_blocked(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Few long lanes are divided into blocks, so that the device is filled."""
    lanes, n, inner = _extent(call)
    blocks = min(_blocks(call, facts, params["PER_UNIT"]), -(-n // SHORTEST_BLOCK))
    block = -(-n // blocks)
    blocks = -(-n // block)
    width = span_of(inner, params["WIDTH"])
    groups = lanes // inner * -(-inner // width)
    local = min(params["LOCAL"], 1 << (groups - 1).bit_length())
    grid, group = (ceil_to(groups, local), blocks), (local, 1)
    defines = {**_scan_defines(call), "WIDTH": width}
    sizes = _sizes(groups, n, inner, block)
    calls = (
        KernelCall("scan", "totals", (inp(0), scratch(0), *sizes), grid, group, defines),
        KernelCall(
            "scan",
            "starts",
            (scratch(0), *_sizes(lanes, blocks)),
            (ceil_to(lanes, local),),
            (local,),
            defines,
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


def suited(_call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """On a GPU a lane for each item: neighbouring lanes are neighbours in memory."""
    return {"WIDTH": 1, "LOCAL": 32} if facts.unit_kind == "gpu" else {}


def suited_naive(_call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    return {"LOCAL": 64} if facts.unit_kind == "gpu" else {}


FAMILY = KernelFamily(
    "scan",
    ("CumSum", "CumProd", "coexec::CumProdGrad"),
    (
        Variant(
            "blocked",
            lower_blocked,
            applies_blocked,
            {"PER_UNIT": (16, 64), "WIDTH": (16, 1), "LOCAL": (8, 32)},
            suited,
        ),
        Variant("lines", lower_lines, applies_lines, {"WIDTH": (16, 1), "LOCAL": (1, 32)}, suited),
        Variant("naive", lower_naive, applies, {"LOCAL": (8, 64)}, suited_naive),
    ),
)
