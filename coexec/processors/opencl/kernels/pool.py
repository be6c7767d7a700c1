"""Pooling and its gradients: window loops for any shape, and tree reductions of whole planes."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from coexec.core.types import OpCall, TensorType
from coexec.ops.pool_geometry import PoolGeometry
from coexec.processors.opencl.broadcast import power_of_two
from coexec.processors.opencl.cnumbers import compute_type, literal, lowest_literal
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Variant,
    c_type,
    ceil_to,
    i32,
    inp,
    out,
    refuse_types,
)
from coexec.processors.opencl.kernels import pool_pairs, pool_rows, pool_threes
from coexec.processors.opencl.kernels.pool_fixed import geometry, lower_fixed, small_window

SPATIAL_RANK = 3
"""Spatial axes that the window kernels loop over; fewer are padded in front."""

MAXIMA = ("MaxPool", "MaxPoolGrad", "GlobalMaxPool")
GLOBAL = ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")


Defines = dict[str, str | int | float]


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    kinds = [kind for kind in (*call.inputs, *call.outputs) if kind is not None]
    if call.op_type not in MAXIMA and kinds[0].dtype.kind != "f":
        return f"{call.op_type}: no kernel for {kinds[0].dtype.name}"
    if max(kind.rank for kind in kinds) > SPATIAL_RANK + 2 and call.op_type not in GLOBAL:
        return f"{call.op_type}: more than {SPATIAL_RANK} spatial axes"
    return refuse_types(kinds, facts)


def applies_fixed(call: OpCall, facts: DeviceFacts) -> str | None:
    refusal = applies(call, facts)
    return refusal or small_window(call, facts)


def applies_rows(call: OpCall, facts: DeviceFacts) -> str | None:
    refusal = applies(call, facts)
    return refusal or pool_rows.refuse_rows(call, facts)


def applies_pairs(call: OpCall, facts: DeviceFacts) -> str | None:
    refusal = applies(call, facts)
    return refusal or pool_pairs.refuse_pairs(call, facts)


def applies_threes(call: OpCall, facts: DeviceFacts) -> str | None:
    refusal = applies(call, facts)
    return refusal or pool_threes.refuse_threes(call, facts)


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    if call.op_type in GLOBAL:
        return Lowering((_global_pool(call, params["LOCAL"]),))
    g = geometry(call)
    entry, args, defines = _window_kernel(call)
    result = call.output(0).shape
    width, rows = result[-1], prod(result[:-1])
    local = work_group(width, rows, params["LOCAL"])
    kernel = KernelCall(
        family="pool",
        entry=entry,
        args=(*args, i32(rows), *axis_arguments(g)),
        global_size=(ceil_to(width, local[0]), ceil_to(rows, local[1])),
        local_size=local,
        defines=_types(call.input(0)) | defines,
    )
    return Lowering((kernel,))


def applies_planes(call: OpCall, facts: DeviceFacts) -> str | None:
    refusal = applies(call, facts)
    if refusal:
        return refusal
    if call.op_type not in ("GlobalAveragePool", "GlobalMaxPool"):
        return f"{call.op_type}: no kernel that reads planes in vectors"
    if facts.unit_kind != "cpu":
        return "a work-item for many planes is for CPUs"
    if call.input(0).dtype.kind != "f" or not call.input(0).size:
        return "no floats to read"
    return None


def lower_planes(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Planes in vectors, many to a work-item."""
    kind = call.input(0)
    planes = kind.shape[0] * kind.shape[1]
    sums = np.dtype(np.float32) if kind.dtype == np.float16 else kind.dtype
    kernel = KernelCall(
        "pool_global",
        "pool_global",
        (inp(0), out(0), i32(planes), i32(kind.size // planes)),
        (min(facts.compute_units * params["SHARES"], planes),),
        (1,),
        {
            "T": c_type(kind.dtype),
            "ACC": compute_type(kind.dtype),
            "V": max(facts.vector_bytes, 16) // sums.itemsize,
            "SAME": int(kind.dtype == sums),
            "MAXIMUM": int(call.op_type == "GlobalMaxPool"),
        },
    )
    return Lowering((kernel,))


def work_group(width: int, rows: int, local: int) -> tuple[int, int]:
    """Work-group of ``local`` items: as wide as a line, then as many lines as fit."""
    first = min(local, power_of_two(width))
    return first, min(local // first, power_of_two(rows))


def _types(kind: TensorType) -> Defines:
    return {
        "T": c_type(kind.dtype),
        "ACC": compute_type(kind.dtype),
        "LOWEST": lowest_literal(kind.dtype),
    }


def axis_arguments(g: PoolGeometry) -> tuple[Argument, ...]:
    """Sizes of each spatial axis in the order of the macro AXIS; missing axes are trivial."""
    fields = (g.in_size, g.out_size, g.kernel, g.strides, g.dilations, g.pads_begin, g.pads_end)
    missing = SPATIAL_RANK - g.rank
    trivial = (1, 1, 1, 1, 1, 0, 0) * missing
    own = tuple(field[axis] for axis in range(g.rank) for field in fields)
    return tuple(map(i32, trivial + own))


def _window_kernel(call: OpCall) -> tuple[str, tuple[Argument, ...], Defines]:
    """Entry point, tensor arguments and defines of a call."""
    include: Defines = {"INCLUDE_PAD": int(call.attribute("count_include_pad", 0))}
    if call.op_type == "MaxPool":
        if not call.has_output(1):
            return "max_pool", (inp(0), out(0)), {}
        order = 2 if call.attribute("storage_order", 0) else 1
        return "max_pool", (inp(0), out(0), out(1)), {"INDICES": order}
    if call.op_type == "MaxPoolGrad":
        return "max_pool_grad", (inp(0), inp(1), out(0)), {}
    if call.op_type == "AveragePool":
        return "sum_pool", (inp(0), out(0)), include
    if call.op_type == "AveragePoolGrad":
        return "average_pool_grad", (inp(0), out(0)), include
    return "sum_pool", (inp(0), out(0)), _lp_expressions(call)


def _lp_expressions(call: OpCall) -> Defines:
    """Power of an element and root of the sum for the Lp norm."""
    p = int(call.attribute("p", 2))
    if p == 1:
        return {"TAP(v)": "fabs(v)", "FINISH(sum, count)": "(sum)"}
    if p == 2:
        return {"TAP(v)": "((v) * (v))", "FINISH(sum, count)": "sqrt(sum)"}
    root = literal(1.0 / p, call.input(0).dtype)
    return {"TAP(v)": f"pown(fabs(v), {p})", "FINISH(sum, count)": f"pow(sum, {root})"}


def _global_pool(call: OpCall, local: int) -> KernelCall:
    kind = call.input(0)
    planes = kind.shape[0] * kind.shape[1]
    size = kind.size // max(planes, 1)
    lanes = min(local, power_of_two(max(size // 4, 1)))
    group = max(local // lanes, 1)
    expressions: Defines = {}
    if call.op_type == "GlobalMaxPool":
        lowest = lowest_literal(kind.dtype)
        expressions = {
            "JOIN(a, b)": "((a) > (b) || (a) != (a) ? (a) : (b))",
            "START": lowest,
            "FINISH(sum, count)": "(sum)",
        }
    elif call.op_type == "GlobalLpPool":
        expressions = _lp_expressions(call)
    return KernelCall(
        family="pool",
        entry="global_pool",
        args=(inp(0), out(0), i32(planes), i32(size)),
        global_size=(lanes, ceil_to(planes, group)),
        local_size=(lanes, group),
        defines=_types(kind) | {"LANES": lanes, "PLANES": group} | expressions,
    )


FAMILY = KernelFamily(
    "pool",
    (
        "MaxPool",
        "coexec::MaxPoolGrad",
        "AveragePool",
        "coexec::AveragePoolGrad",
        "LpPool",
        *GLOBAL,
    ),
    (
        Variant(
            "planes", lower_planes, applies_planes, space={"SHARES": (16, 8, 4)}, units=("cpu",)
        ),
        Variant(
            "pairs", pool_pairs.lower_pairs, applies_pairs, space=pool_pairs.SPACE, units=("cpu",)
        ),
        Variant(
            "threes",
            pool_threes.lower_threes,
            applies_threes,
            space=pool_threes.SPACE,
            units=("cpu",),
        ),
        Variant("rows", pool_rows.lower_rows, applies_rows, space=pool_rows.SPACE, units=("cpu",)),
        Variant("fixed", lower_fixed, applies_fixed, space={"LOCAL": (256, 64, 16)}),
        Variant("naive", lower, applies, space={"LOCAL": (64, 16, 256)}),
    ),
)
