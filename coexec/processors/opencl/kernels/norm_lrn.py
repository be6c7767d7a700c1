"""Local response normalisation plane by plane: ``norm_lrn.cl`` (a variant of ``norm``)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.norm import lrn_reach, lrn_scalars
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    Lowering,
    f32,
    i32,
    inp,
    out,
)

LEAST_LANES, MOST_LANES = 4, 16
EXPONENT = 0.75
"""The usual one: the kernel takes its root without pow()."""
LEAST_BIAS = 1e-30
"""Far above numbers that devices flush to zero."""


def refuse_lrn(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why vectors along planes do not fit, else ``None``."""
    if call.op_type != "LRN":
        return "not a local response normalisation"
    alpha, beta, bias = lrn_scalars(call)
    if facts.unit_kind != "cpu":
        return "lone work-items suit processors with few of them"
    if call.input(0).dtype != np.float32:
        return f"{call.input(0).dtype.name}: roots are for float32"
    if beta != EXPONENT or alpha < 0 or bias < LEAST_BIAS:
        return f"alpha {alpha}, beta {beta}, bias {bias}: not the root of a positive sum"
    if _inner(call) < LEAST_LANES:
        return f"planes of fewer than {LEAST_LANES} elements"
    return None


def lower_lrn(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One kernel; work-items have even shares of the planes."""
    kind = call.input(0)
    rows, channels = kind.shape[0] * kind.shape[1], kind.shape[1]
    inner = _inner(call)
    alpha, _, bias = lrn_scalars(call)
    per_item = -(-rows // (facts.compute_units * params["ITEMS"]))
    lanes = min(facts.vector_bytes // 4, MOST_LANES, 1 << (inner.bit_length() - 1))
    sizes = map(i32, (rows, channels, inner, *lrn_reach(call)))
    ratio = f32(alpha / int(call.attributes["size"]))
    kernel = KernelCall(
        "norm_lrn",
        "lrn_planes",
        (inp(0), out(0), *sizes, ratio, f32(bias), i32(per_item)),
        (-(-rows // per_item),),
        (1,),
        {"V": max(lanes, LEAST_LANES)},
    )
    return Lowering((kernel,))


def _inner(call: OpCall) -> int:
    """Elements of a plane."""
    kind = call.input(0)
    return kind.size // max(kind.shape[0] * kind.shape[1], 1)
