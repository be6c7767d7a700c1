"""QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear for the integers OpenCL C has."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.quantize import division_type, granularity, integer_range
from coexec.processors.opencl.cnumbers import compute_type
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Operand,
    Variant,
    c_type,
    ceil_to,
    i32,
    inp,
    out,
    refuse_types,
    scratch,
)
from coexec.processors.opencl.kernels.reduce import formula_of
from coexec.processors.opencl.kernels.reducing import Problem, accumulator, reduce_calls

REDUCE_PARAMS: Mapping[str, int] = {"WIDTH": 16, "LOCAL": 16, "INTERLEAVE": 0}


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    if call.op_type == "DequantizeLinear" and call.input(0).dtype.kind not in "iu":
        return f"dequantising {call.input(0).dtype.name}"
    if call.op_type == "QuantizeLinear" and division_type(call).name not in (
        "float16",
        "float32",
        "float64",
    ):
        return f"division in {division_type(call).name}"
    return refuse_types((*call.inputs, *call.outputs), facts)


def scale_arguments(call: OpCall) -> list[int]:
    """Dimensions and steps by which an element finds its scale."""
    g = granularity(call)
    return [g.axis, g.inner, g.block, *g.steps]


def quantize_call(call: OpCall, params: Mapping[str, int]) -> KernelCall:
    x, y, local = call.input(0), call.output(0), params["LOCAL"]
    low, high = integer_range(y.dtype)
    defines: dict[str, str | int | float] = {
        "T": c_type(x.dtype),
        "U": c_type(y.dtype),
        "S": c_type(call.input(1).dtype),
        "Z": c_type(y.dtype),
        "C": c_type(division_type(call)),
        "LOW": f"({low})",
        "HIGH": high,
    }
    if call.has_input(2):
        defines["ZEROS"] = 1
    zeros = inp(2 if call.has_input(2) else 0)
    return KernelCall(
        family="quantize",
        entry="quantize",
        args=(inp(0), inp(1), zeros, out(0), *map(i32, (x.size, *scale_arguments(call)))),
        global_size=(ceil_to(x.size, local),),
        local_size=(local,),
        defines=defines,
    )


def dequantize_call(call: OpCall, params: Mapping[str, int]) -> KernelCall:
    x, y, local = call.input(0), call.output(0), params["LOCAL"]
    wide = np.float64 in (y.dtype, call.input(1).dtype)
    defines: dict[str, str | int | float] = {
        "T": c_type(x.dtype),
        "U": c_type(y.dtype),
        "S": c_type(call.input(1).dtype),
        "Z": c_type(x.dtype),
        "C": "double" if wide else "float",
        "I": "long" if x.dtype.itemsize >= 4 else "int",
    }
    if call.has_input(2):
        defines["ZEROS"] = 1
    zeros = inp(2 if call.has_input(2) else 0)
    return KernelCall(
        family="quantize",
        entry="dequantize",
        args=(inp(0), inp(1), zeros, out(0), *map(i32, (x.size, *scale_arguments(call)))),
        global_size=(ceil_to(x.size, local),),
        local_size=(local,),
        defines=defines,
    )


def lower_dynamic(call: OpCall, params: Mapping[str, int]) -> Lowering:
    """Extremes of x, then the scale and the zero point, then the values."""
    x, local = call.input(0), params["LOCAL"]
    acc = accumulator(x.dtype)
    size = acc.itemsize
    blocks = [size, size, size, size, 1]
    calls: list[KernelCall] = []
    for block, name in enumerate(("ReduceMin", "ReduceMax")):
        formula, target = formula_of(name, acc), scratch(block)
        problem = Problem(formula, (1, 1, 1, x.size), inp(0), x.dtype, target, acc, acc)
        some, more = reduce_calls(problem, REDUCE_PARAMS, len(blocks))
        calls += some
        blocks += more
    compute = compute_type(x.dtype)
    types: dict[str, str | int | float] = {"T": c_type(x.dtype), "S": c_type(x.dtype), "C": compute}
    scale: Operand = out(1) if call.has_output(1) else scratch(2)
    zero: Operand = out(2) if call.has_output(2) else scratch(4)
    span = KernelCall(
        family="quantize",
        entry="span",
        args=(scratch(0), scratch(1), scale, scratch(3), zero),
        global_size=(1,),
        local_size=(1,),
        defines=types,
    )
    values = KernelCall(
        family="quantize",
        entry="quantize",
        args=(inp(0), scratch(3), zero, out(0), *map(i32, (x.size, 1, x.size, 1, 0, 0, 0))),
        global_size=(ceil_to(x.size, local),),
        local_size=(local,),
        defines={**types, "S": compute, "ZEROS": 1},
    )
    return Lowering((*calls, span, values), tuple(blocks))


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    if call.input(0).size == 0:
        return Lowering(())
    if call.op_type == "DynamicQuantizeLinear":
        return lower_dynamic(call, params)
    make = quantize_call if call.op_type == "QuantizeLinear" else dequantize_call
    return Lowering((make(call, params),))


FAMILY = KernelFamily(
    "quantize",
    ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
    (Variant("naive", lower, applies, space={"LOCAL": (64, 16, 256)}),),
)
