"""Dynamic quantisation of floats by several work-items, in two passes (dynamic_quantize.cl)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    Lowering,
    Operand,
    ceil_to,
    i32,
    inp,
    out,
    refuse_types,
    scratch,
)

FAMILY_FILE = "dynamic_quantize"
WIDTH = 16
"""Elements of a vector (W in dynamic_quantize.cl)."""
LEAST_PART = 2048
"""Elements that take longer than starting a work-item."""
SPACE: Mapping[str, tuple[int, ...]] = {"PARTS": (4, 1, 2, 8)}
"""Parts for each compute unit."""


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why two passes do not quantise a tensor, else ``None``."""
    if call.op_type != "DynamicQuantizeLinear" or call.input(0).dtype != np.float32:
        return "no dynamic quantisation of float32"
    if not call.input(0).size:
        return "nothing to quantise"
    return refuse_types((*call.inputs, *call.outputs), facts)


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Extremes of parts, then the range of all, the scale, the zero point and the values."""
    x = call.input(0)
    most = max(1, params["PARTS"] * facts.compute_units)
    part = ceil_to(max(-(-x.size // most), LEAST_PART), WIDTH)
    parts = -(-x.size // part)
    scale: Operand = out(1) if call.has_output(1) else scratch(1)
    zero: Operand = out(2) if call.has_output(2) else scratch(2)
    extremes = KernelCall(
        FAMILY_FILE,
        "extremes",
        (inp(0), scratch(0), i32(x.size), i32(part)),
        (parts,),
        (1,),
        flop=2 * x.size,
        bytes=x.nbytes,
    )
    values = KernelCall(
        FAMILY_FILE,
        "quantise",
        (inp(0), scratch(0), scale, zero, out(0), *map(i32, (x.size, part, parts))),
        (parts,),
        (1,),
        flop=3 * x.size,
        bytes=x.nbytes + x.size,
    )
    return Lowering((extremes, values), (parts * 8, 4, 1))
