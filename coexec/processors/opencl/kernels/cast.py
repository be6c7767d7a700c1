"""Conversion between the element types that OpenCL C has."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

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
from coexec.processors.opencl.kernels.unary import WIDE_SPACE, suited_width


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    return refuse_types((call.input(0), call.output(0)), facts)


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    source, target = call.input(0), call.output(0)
    if target.size == 0:
        return Lowering(())
    width, local = params.get("WIDTH", 1), params["LOCAL"]
    defines: dict[str, str | int | float] = {
        "T": c_type(source.dtype),
        "U": c_type(target.dtype),
        "W": width,
    }
    if target.dtype == np.bool_:
        defines["TO_BOOL"] = 1
    kernel = KernelCall(
        family="cast",
        entry="cast",
        args=(inp(0), out(0), i32(target.size)),
        global_size=(ceil_to(-(-target.size // width), local),),
        local_size=(local,),
        defines=defines,
    )
    return Lowering((kernel,))


FAMILY = KernelFamily(
    "cast",
    ("Cast", "CastLike"),
    (
        Variant("wide", lower, applies, WIDE_SPACE, suited_width),
        Variant("naive", lower, applies, space={"LOCAL": (64, 16, 256)}),
    ),
)
