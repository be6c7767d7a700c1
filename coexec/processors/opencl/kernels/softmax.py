"""Softmax, LogSoftmax, Hardmax and the gradients of the first two."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.softmax import softmax_axis
from coexec.processors.opencl.broadcast import line_geometry
from coexec.processors.opencl.cnumbers import compute_type
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Variant,
    c_type,
    i32,
    inp,
    out,
    refuse_types,
)
from coexec.processors.opencl.kernels import softmax_groups

KINDS: Mapping[str, int] = {
    "Softmax": 0,
    "LogSoftmax": 1,
    "Hardmax": 2,
    "coexec::SoftmaxGrad": 0,
    "coexec::LogSoftmaxGrad": 1,
}
"""``KIND`` of each operator in ``softmax.cl``."""


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    return refuse_types((*call.inputs, *call.outputs), facts)


def inner_size(call: OpCall) -> int:
    return prod(call.input(0).shape[softmax_axis(call) + 1 :])


def applies_rows(call: OpCall, facts: DeviceFacts) -> str | None:
    if call.op_type == "Hardmax":
        return "Hardmax has one kernel only"
    if inner_size(call) != 1:
        return "the axis is not the innermost one"
    return applies(call, facts)


def applies_columns(call: OpCall, facts: DeviceFacts) -> str | None:
    if call.op_type == "Hardmax":
        return "Hardmax has one kernel only"
    if inner_size(call) == 1:
        return "the axis is the innermost one"
    return applies(call, facts)


def kernel_call(
    call: OpCall,
    entry: str,
    sizes: tuple[int, ...],
    geometry: tuple[tuple[int, ...], tuple[int, ...]],
    width: int,
) -> KernelCall:
    """``entry`` (or its gradient) with global and local size ``geometry``."""
    dtype = call.input(0).dtype
    defines: dict[str, str | int | float] = {
        "T": c_type(dtype),
        "C": compute_type(dtype),
        "W": width,
        "KIND": KINDS[call.identifier],
    }
    if dtype == np.float16:
        defines["WIDEN"] = 1
    operands = [inp(i) for i in range(len(call.inputs))]
    prefix = "grad_" if len(operands) == 2 else ""
    return KernelCall(
        family="softmax",
        entry=prefix + entry,
        args=(*operands, out(0), *map(i32, sizes)),
        global_size=geometry[0],
        local_size=geometry[1],
        defines=defines,
    )


def lower_rows(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One work-item per contiguous line."""
    x = call.input(0)
    if x.size == 0:
        return Lowering(())
    length = x.shape[softmax_axis(call)]
    rows = x.size // length
    geometry = line_geometry(rows, 1, 1, 1, params["LOCAL"])
    return Lowering((kernel_call(call, "rows", (rows, length), geometry, params["WIDTH"]),))


def lower_groups(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """A line of work-items per contiguous line."""
    x = call.input(0)
    if x.size == 0:
        return Lowering(())
    length = x.shape[softmax_axis(call)]
    operands = tuple(inp(i) for i in range(len(call.inputs)))
    sizes = (x.size // length, length)
    kind = KINDS[call.identifier]
    kernel = softmax_groups.group_call(operands, out(0), x.dtype, *sizes, kind, params)
    return Lowering((kernel,))


def suited_columns(_call: OpCall, facts: DeviceFacts) -> Mapping[str, int]:
    """On a GPU neighbouring work-items have neighbouring lines, four each."""
    return {"WIDTH": 4, "LOCAL": 64} if facts.unit_kind == "gpu" else {}


def lower_columns(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One work-item for ``WIDTH`` neighbouring lines."""
    x, width = call.input(0), params["WIDTH"]
    if x.size == 0:
        return Lowering(())
    length, inner = x.shape[softmax_axis(call)], inner_size(call)
    outer = x.size // (length * inner)
    full, group = line_geometry(inner, outer, 1, width, params["LOCAL"])
    sizes = (inner, outer, length)
    return Lowering((kernel_call(call, "columns", sizes, (full[:2], group[:2]), width),))


def lower_lines(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One work-item per line, one element at a time."""
    x = call.input(0)
    if x.size == 0:
        return Lowering(())
    length, inner = x.shape[softmax_axis(call)], inner_size(call)
    count = x.size // length
    geometry = line_geometry(count, 1, 1, 1, params["LOCAL"])
    return Lowering((kernel_call(call, "lines", (count, inner, length), geometry, 1),))


FAMILY = KernelFamily(
    "softmax",
    tuple(KINDS),
    (
        Variant(
            "rows",
            lower_rows,
            applies_rows,
            space={"WIDTH": (16, 8, 4), "LOCAL": (8, 16, 64)},
            units=("cpu",),
        ),
        Variant("groups", lower_groups, applies_rows, softmax_groups.SPACE, units=("gpu",)),
        Variant(
            "columns",
            lower_columns,
            applies_columns,
            {"WIDTH": (16, 8, 4), "LOCAL": (8, 16, 64)},
            suited_columns,
        ),
        Variant("naive", lower_lines, applies, space={"LOCAL": (16, 64, 256)}),
    ),
)
