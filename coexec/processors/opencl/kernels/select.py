"""Selection between two operands by a condition (Where)."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from coexec.core.types import OpCall
from coexec.processors.opencl.broadcast import (
    MAX_RANK,
    Loops,
    broadcast_loops,
    line_geometry,
    stride_arguments,
)
from coexec.processors.opencl.cnumbers import mask_type
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
from coexec.processors.opencl.kernels.binary import LINE_RANK
from coexec.processors.opencl.kernels.unary import WIDE_SPACE, suited_width


def loops_of(call: OpCall) -> Loops:
    return broadcast_loops(call.output(0).shape, [call.input(i).shape for i in range(3)])


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    rank = len(loops_of(call).dims)
    if rank > MAX_RANK:
        return f"broadcast over {rank} loops, more than {MAX_RANK}"
    return refuse_types((*call.inputs, *call.outputs), facts)


def applies_lines(call: OpCall, facts: DeviceFacts) -> str | None:
    rank = len(loops_of(call).dims)
    if rank > LINE_RANK:
        return f"broadcast over {rank} loops, more than {LINE_RANK}"
    return applies(call, facts)


def defines(call: OpCall, width: int) -> dict[str, str | int | float]:
    dtype = call.output(0).dtype
    return {"T": c_type(dtype), "M": mask_type(dtype), "W": width}


def lower_lines(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """``WIDTH`` elements of a line per work-item."""
    if call.output(0).size == 0:
        return Lowering(())
    loops = loops_of(call).padded(LINE_RANK)
    *outer, middle, inner = loops.dims
    sizes, local = line_geometry(inner, middle, prod(outer), params["WIDTH"], params["LOCAL"])
    strides = [i32(s) for operand in loops.strides for s in operand]
    kernel = KernelCall(
        family="select",
        entry="lines",
        args=(inp(0), inp(1), inp(2), out(0), *map(i32, loops.dims), *strides),
        global_size=sizes,
        local_size=local,
        defines=defines(call, params["WIDTH"]),
    )
    return Lowering((kernel,))


def lower_strided(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One element per work-item, any strides."""
    size, local = call.output(0).size, params["LOCAL"]
    if size == 0:
        return Lowering(())
    kernel = KernelCall(
        family="select",
        entry="strided",
        args=(inp(0), inp(1), inp(2), out(0), i32(size), *stride_arguments(loops_of(call))),
        global_size=(ceil_to(size, local),),
        local_size=(local,),
        defines=defines(call, 1),
    )
    return Lowering((kernel,))


FAMILY = KernelFamily(
    "select",
    ("Where",),
    (
        Variant("lines", lower_lines, applies_lines, WIDE_SPACE, suited_width),
        Variant("naive", lower_strided, applies, space={"LOCAL": (64, 16, 256)}),
    ),
)
