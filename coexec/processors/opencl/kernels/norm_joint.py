"""Batch normalisation of shares that meet those of other processors: ``norm_joint.cl``."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.ops.batch_norm import EPSILON, MOMENTUM
from coexec.ops.batch_norm_joint import GRADIENT_PLACE, OLD, PLACE, member_of, parts_of
from coexec.processors.opencl.family import (
    Argument,
    DeviceFacts,
    KernelCall,
    KernelFamily,
    Lowering,
    Variant,
    c_type,
    f32,
    i32,
    inp,
    out,
    scratch,
)
from coexec.processors.opencl.kernels.norm_planes import (
    LEAST_LANES,
    NOTHING_MORE,
    Epilogue,
    Walk,
    lanes_of,
)

JOINT, JOINT_GRAD = "coexec::JointNormalization", "coexec::JointNormalizationGrad"
MOST_MEMBERS = 8
BLOCK_BYTES = 1 << 17
"""Operands of channels that are summed up before others are told: two such blocks and their results
stay in a second cache."""


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    if facts.unit_kind != "cpu":
        return f"{call.op_type}: a lone work-item waits for other processors, which is for cores"
    kinds = [k for k in (*call.inputs, *call.outputs) if k is not None and k.dtype != np.int32]
    if any(kind.dtype != np.float32 for kind in kinds):
        return f"{call.op_type}: only for float32"
    if member_of(call)[1] > MOST_MEMBERS:
        return f"{call.op_type}: more than {MOST_MEMBERS} members"
    kind = call.input(0)
    if kind.size < max(LEAST_LANES * kind.shape[0] * kind.shape[1], 1):
        return f"planes of less than {LEAST_LANES} elements"
    if not all(call.has_output(i) for i in range(1 if call.identifier == JOINT_GRAD else PLACE)):
        return f"{call.op_type}: a result is not in use"
    return None


def lower(
    call: OpCall,
    facts: DeviceFacts,
    params: Mapping[str, int],
    epilogue: Epilogue = NOTHING_MORE,
) -> Lowering:
    """One work-item for all channels."""
    gradient = call.identifier == JOINT_GRAD
    lanes = lanes_of(call, facts)
    number, members = member_of(call)
    kernel = KernelCall(
        "norm_joint",
        "batch_joint_grad" if gradient else "batch_joint",
        _gradient(call, epilogue) if gradient else _normalised(call, lanes, epilogue),
        (1,),
        (1,),
        {
            "TP": c_type(call.input(1).dtype),
            "V": lanes,
            "GRADIENT": int(gradient),
            "MEMBER": number,
            "MEMBERS": members,
            "EACH_MEMBER(F)": " ".join(f"F({member})" for member in range(members)),
            "RUNNING": int(not gradient and call.has_output(OLD)),
            **epilogue.defines(),
        },
        meets=members > 1,
    )
    unused = call.input(1).nbytes
    return Lowering((kernel,), (unused, unused) if gradient else ())


def _numbers(call: OpCall, operands: int) -> tuple[Argument, ...]:
    """Where the place is, channels of a block, and what is added to variances."""
    kind = call.input(0)
    per_block = max(BLOCK_BYTES * kind.shape[1] // (operands * kind.nbytes), 1)
    epsilon = f32(float(call.attribute("epsilon", EPSILON)))
    return i32(int(call.attribute("offset", 0))), i32(per_block), epsilon


def _normalised(call: OpCall, lanes: int, epilogue: Epilogue) -> tuple[Argument, ...]:
    old = (inp(OLD), inp(OLD + 1), out(3), out(4)) if call.has_output(OLD) else ()
    tensors = (*map(inp, range(PLACE + 1)), *epilogue.operands(), *map(out, range(3)), *old)
    parts = map(f32, parts_of(call))
    momentum = f32(float(call.attribute("momentum", MOMENTUM)))
    return (*tensors, *Walk.of(call, lanes).sizes, *parts, *_numbers(call, 1), momentum)


def _gradient(call: OpCall, epilogue: Epilogue) -> tuple[Argument, ...]:
    kind = call.input(0)
    images, channels = kind.shape[:2]
    sizes = (images, channels, kind.size // (images * channels), int(call.attributes["count"]))
    masked = (epilogue.masked,) if epilogue.masked else ()
    targets = (out(i) if call.has_output(i) else scratch(i - 1) for i in (1, 2))
    place = (inp(3), inp(4), inp(GRADIENT_PLACE))
    tensors = (inp(0), inp(1), inp(2), *epilogue.result(), *place, *masked, out(0), *targets)
    return (*tensors, *map(i32, sizes), *_numbers(call, 2 + bool(epilogue.activated)))


FAMILY = KernelFamily("norm_joint", (JOINT, JOINT_GRAD), (Variant("naive", lower, applies),))
