"""Normalisation over groups of channels by lone work-items: ``norm_groups.cl`` (of ``norm``)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.group_norm import EPSILON, group_count
from coexec.processors.opencl.cnumbers import compute_type
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelCall,
    Lowering,
    c_type,
    f32,
    i32,
    inp,
    out,
)

LEAST_LANES = 4


def refuse_groups(call: OpCall, facts: DeviceFacts) -> str | None:
    """Why groups are no good vectors here, else ``None``."""
    if call.op_type not in ("GroupNormalization", "InstanceNormalization"):
        return "statistics are not those of groups"
    if facts.unit_kind != "cpu":
        return "lone work-items suit processors with few of them"
    kind = call.input(0)
    if kind.size < LEAST_LANES * kind.shape[0] * kind.shape[1] or kind.size == 0:
        return f"channels of fewer than {LEAST_LANES} elements"
    if kind.shape[0] * group_count(call) < facts.compute_units:
        return "fewer groups than compute units"
    return None


def lower_groups(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """One kernel; work-items have even shares of the groups of all images."""
    kind, groups = call.input(0), group_count(call)
    rows, segments = kind.shape[0] * groups, kind.shape[1] // groups
    inner = kind.size // (kind.shape[0] * kind.shape[1])
    per_item = -(-rows // (facts.compute_units * params["ITEMS"]))
    wide = 8 if kind.dtype == np.float64 else 4
    lanes = max(min(facts.vector_bytes // wide, 16, 1 << (inner.bit_length() - 1)), LEAST_LANES)
    sizes = map(i32, (rows, groups, segments, inner, per_item))
    epsilon = f32(float(call.attribute("epsilon", EPSILON)))
    kernel = KernelCall(
        "norm_groups",
        "groups_norm",
        (inp(0), inp(1), inp(2), out(0), *sizes, epsilon),
        (-(-rows // per_item),),
        (1,),
        {
            "T": c_type(kind.dtype),
            "ACC": compute_type(kind.dtype),
            "SAME": int(c_type(kind.dtype) == compute_type(kind.dtype)),
            "TP": c_type(call.input(1).dtype),
            "V": lanes,
        },
    )
    return Lowering((kernel,))
