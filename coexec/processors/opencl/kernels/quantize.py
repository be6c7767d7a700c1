"""QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear for the integers OpenCL C has."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.quantize import Granularity, division_type, granularity, integer_range
from coexec.processors.opencl.broadcast import line_geometry
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
from coexec.processors.opencl.kernels import dynamic_quantize
from coexec.processors.opencl.kernels.reduce import formula_of
from coexec.processors.opencl.kernels.reducing import (
    Problem,
    accumulator,
    params_for_one,
    reduce_calls,
)
from coexec.processors.opencl.kernels.unary import WIDE_SPACE, suited_width

MOST_ALONE = 1 << 14
"""Elements that one work-item quantises in about the time that a launch takes."""


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


def parts_of(call: OpCall) -> Granularity:
    """How elements find their scales; scales along the innermost axis become lines of scales."""
    g = granularity(call)
    if g.inner == 1 and g.steps == (0, 1, 0):
        return Granularity(1, g.outer, g.axis, 1, (0, 0, 1))
    return g


def defines_of(call: OpCall) -> dict[str, str | int | float]:
    """Macros of ``quantize.cl`` for a static quantisation or its inverse."""
    x, scale, y = call.input(0), call.input(1), call.output(0)
    found: dict[str, str | int | float] = {
        "T": c_type(x.dtype),
        "U": c_type(y.dtype),
        "S": c_type(scale.dtype),
    }
    if call.has_input(2):
        found["ZEROS"] = 1
    if call.op_type == "QuantizeLinear":
        low, high = integer_range(y.dtype)
        compute = c_type(division_type(call))
        return {**found, "Z": c_type(y.dtype), "C": compute, "LOW": f"({low})", "HIGH": high}
    wide = np.float64 in (y.dtype, scale.dtype)
    integer = "long" if x.dtype.itemsize >= 4 else "int"
    return {**found, "Z": c_type(x.dtype), "C": "double" if wide else "float", "I": integer}


ENTRIES: Mapping[str, str] = {"QuantizeLinear": "quantize", "DequantizeLinear": "dequantize"}


def static_operands(call: OpCall) -> tuple[Operand, ...]:
    """x, scales, zero points (any tensor where there are none), y."""
    return inp(0), inp(1), inp(2 if call.has_input(2) else 0), out(0)


def element_call(call: OpCall, params: Mapping[str, int]) -> KernelCall:
    """One element per work-item."""
    size, local, g = call.input(0).size, params["LOCAL"], granularity(call)
    return KernelCall(
        family="quantize",
        entry=ENTRIES[call.op_type],
        args=(*static_operands(call), *map(i32, (size, g.axis, g.inner, g.block, *g.steps))),
        global_size=(ceil_to(size, local),),
        local_size=(local,),
        defines={**defines_of(call), "W": 1},
    )


def applies_lines(call: OpCall, facts: DeviceFacts) -> str | None:
    if call.op_type == "DynamicQuantizeLinear":
        return "dynamic quantisation has one form only"
    return applies(call, facts)


def lower_lines(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """``WIDTH`` elements of a line per work-item."""
    if call.input(0).size == 0:
        return Lowering(())
    g, width = parts_of(call), params["WIDTH"]
    sizes, local = line_geometry(g.inner, g.axis, g.outer, width, params["LOCAL"])
    kernel = KernelCall(
        family="quantize",
        entry=f"{ENTRIES[call.op_type]}_lines",
        args=(*static_operands(call), *map(i32, (g.axis, g.inner, g.block, *g.steps))),
        global_size=sizes,
        local_size=local,
        defines={**defines_of(call), "W": width},
    )
    return Lowering((kernel,))


def lower_dynamic(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Extremes of x, then the scale and the zero point, then the values."""
    x = call.input(0)
    acc = accumulator(x.dtype)
    size = acc.itemsize
    blocks = [size, size, size, size, 1]
    calls: list[KernelCall] = []
    for block, name in enumerate(("ReduceMin", "ReduceMax")):
        formula, target = formula_of(name, acc), scratch(block)
        problem = Problem(formula, (1, 1, 1, x.size), inp(0), x.dtype, target, acc, acc)
        some, more = reduce_calls(problem, params_for_one(facts), len(blocks))
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
    width = 4 if facts.unit_kind == "gpu" else 16
    sizes, group = line_geometry(x.size, 1, 1, width, params["LOCAL"])
    values = KernelCall(
        family="quantize",
        entry="quantize_lines",
        args=(inp(0), scratch(3), zero, out(0), *map(i32, (1, x.size, 1, 0, 0, 0))),
        global_size=sizes,
        local_size=group,
        defines={**types, "S": compute, "ZEROS": 1, "W": width},
    )
    return Lowering((*calls, span, values), tuple(blocks))


def applies_alone(call: OpCall, facts: DeviceFacts) -> str | None:
    if call.op_type != "DynamicQuantizeLinear" or facts.unit_kind != "cpu":
        return "lone work-items quantise dynamically, on processors with few of them"
    if not 0 < call.input(0).size <= MOST_ALONE:
        return f"more than {MOST_ALONE} elements: several work-items share them"
    return applies(call, facts)


def lower_alone(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One work-item: a launch takes longer than it does."""
    x = call.input(0)
    scale: Operand = out(1) if call.has_output(1) else scratch(0)
    zero: Operand = out(2) if call.has_output(2) else scratch(1)
    names = {"T": c_type(x.dtype), "S": c_type(x.dtype), "C": compute_type(x.dtype)}
    kernel = KernelCall(
        family="quantize",
        entry="quantize_alone",
        args=(inp(0), scale, zero, out(0), i32(x.size)),
        global_size=(1,),
        local_size=(1,),
        defines={**names, "W": params["WIDTH"]},
    )
    return Lowering((kernel,), (accumulator(x.dtype).itemsize, 1))


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    if call.input(0).size == 0:
        return Lowering(())
    if call.op_type == "DynamicQuantizeLinear":
        return lower_dynamic(call, facts, params)
    return Lowering((element_call(call, params),))


FAMILY = KernelFamily(
    "quantize",
    ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
    (
        Variant("lines", lower_lines, applies_lines, WIDE_SPACE, suited_width),
        Variant("alone", lower_alone, applies_alone, space={"WIDTH": (16, 8, 4)}),
        Variant(
            "parts",
            dynamic_quantize.lower,
            dynamic_quantize.applies,
            dynamic_quantize.SPACE,
            units=("cpu",),
        ),
        Variant("naive", lower, applies, space={"LOCAL": (64, 16, 256)}),
    ),
)
