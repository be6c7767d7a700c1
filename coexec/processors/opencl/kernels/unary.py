"""Elementwise operators of one operand: y[i] = f(x[i])."""

from __future__ import annotations

from collections.abc import Mapping

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
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

EXPRESSIONS = {
    "Relu": "max(x, (T)0)",
    "Neg": "-x",
}
"""OpenCL C expression of each operator in terms of ``x``."""


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    return refuse_types((*call.inputs, *call.outputs), facts)


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    size = call.output(0).size
    local = params["LOCAL"]
    kernel = KernelCall(
        family="unary",
        entry="unary",
        args=(inp(0), out(0), i32(size)),
        global_size=(ceil_to(size, local),),
        local_size=(local,),
        defines={"T": c_type(call.input(0).dtype), "F(x)": EXPRESSIONS[call.op_type]},
    )
    return Lowering((kernel,))


FAMILY = KernelFamily(
    "unary",
    tuple(EXPRESSIONS),
    (Variant("naive", lower, applies, space={"LOCAL": (64, 16, 256)}),),
)
