"""Batch normalisation fused with an activation: kernels for planes, or for groups, do both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from coexec.core.types import OpCall
from coexec.processors.opencl.cnumbers import literal
from coexec.processors.opencl.family import (
    DeviceFacts,
    KernelFamily,
    Lowering,
    Variant,
    inp,
    out,
)
from coexec.processors.opencl.fusion.activated import (
    ACTIVATED,
    ACTIVATED_GRAD,
    ACTIVATED_JOINT,
    ACTIVATED_JOINT_GRAD,
    ACTIVATED_SUMS,
    Bounds,
    activated_of,
)
from coexec.processors.opencl.kernels import norm, norm_joint, norm_shares
from coexec.processors.opencl.kernels.norm_batch import lower_batch_activated, refuse_activated
from coexec.processors.opencl.kernels.norm_planes import Epilogue, lower_planes


def activation_text(bounds: Bounds, dtype: np.dtype[Any]) -> str:
    """``ACTIVATE(type, v)``; NaN stays NaN, as in unary.cl."""
    text = "(v)"
    if bounds.low is not None:
        low = f"(type){literal(bounds.low, dtype)}"
        text = f"({text} < {low} ? {low} : {text})"
    if bounds.high is not None:
        high = f"(type){literal(bounds.high, dtype)}"
        text = f"({text} > {high} ? {high} : {text})"
    return text


def mask_text(bounds: Bounds, dtype: np.dtype[Any]) -> str:
    """``MASK_GRADIENT(type, g, y)``: g where y lies between the bounds."""
    tests = []
    if bounds.low is not None:
        tests.append(f"((y) > (type){literal(bounds.low, dtype)})")
    if bounds.high is not None:
        tests.append(f"((y) < (type){literal(bounds.high, dtype)})")
    return f"(({' & '.join(tests)}) ? (g) : (type)0)"


def epilogue_of(call: OpCall) -> Epilogue:
    """What the kernels do beside normalising."""
    own, dtype = activated_of(call), call.input(0).dtype
    last = len(own.call.inputs)
    if not call.op_type.endswith(("Grad", "Sums")):
        return Epilogue(activation_text(own.bounds, dtype), inp(last) if own.residual else None)
    behind = 2 if call.identifier == ACTIVATED_SUMS.identifier else 3
    masked = out(behind) if len(call.outputs) > behind and call.has_output(behind) else None
    return Epilogue(mask=mask_text(own.bounds, dtype), activated=inp(last), masked=masked)


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    own = activated_of(call).call
    if call.identifier == ACTIVATED_SUMS.identifier:
        return norm_shares.applies_planes(own, facts)
    if own.identifier in (norm_joint.JOINT, norm_joint.JOINT_GRAD):
        return norm_joint.applies(own, facts)
    return norm.applies_planes(own, facts)


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    own, epilogue = activated_of(call).call, epilogue_of(call)
    if call.identifier == ACTIVATED_SUMS.identifier:
        return norm_shares.lower_planes(own, facts, params, epilogue)
    if own.identifier in (norm_joint.JOINT, norm_joint.JOINT_GRAD):
        return norm_joint.lower(own, facts, params, epilogue)
    return lower_planes(own, facts, params, epilogue)


def applies_groups(call: OpCall, facts: DeviceFacts) -> str | None:
    own = activated_of(call).call
    return norm.applies(own, facts) or refuse_activated(own)


def lower_groups(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    """Work-groups for channels or slices of them, as GPUs want it."""
    return lower_batch_activated(activated_of(call).call, facts, params, epilogue_of(call))


# There is no other way to compute these: their oracle are the nodes that were fused.
FAMILY = KernelFamily(
    "norm_activated",
    (
        ACTIVATED.identifier,
        ACTIVATED_GRAD.identifier,
        ACTIVATED_SUMS.identifier,
        ACTIVATED_JOINT.identifier,
        ACTIVATED_JOINT_GRAD.identifier,
    ),
    (
        Variant("planes", lower, applies, space={"ITEMS": (8, 4, 32)}, units=("cpu",)),
        Variant("groups", lower_groups, applies_groups, {"LOCAL": (64, 128, 256)}, units=("gpu",)),
        Variant("naive", lower, applies, space={"ITEMS": (1,)}),
    ),
)
