"""Batch normalisation fused with an activation: the kernels of ``norm_planes.cl`` do both."""

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
    Bounds,
    activated_of,
)
from coexec.processors.opencl.kernels import norm
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
    if call.op_type == "BatchNormalization":
        return Epilogue(activation_text(own.bounds, dtype), inp(5) if own.residual else None)
    masked = out(3) if len(call.outputs) > 3 and call.has_output(3) else None
    return Epilogue(mask=mask_text(own.bounds, dtype), activated=inp(3), masked=masked)


def applies(call: OpCall, facts: DeviceFacts) -> str | None:
    return norm.applies_planes(activated_of(call).call, facts)


def lower(call: OpCall, facts: DeviceFacts, params: Mapping[str, int]) -> Lowering:
    return lower_planes(activated_of(call).call, facts, params, epilogue_of(call))


# There is no other way to compute these: their oracle are the nodes that were fused.
FAMILY = KernelFamily(
    "norm_activated",
    (ACTIVATED.identifier, ACTIVATED_GRAD.identifier),
    (
        Variant("planes", lower, applies, space={"ITEMS": (8, 4, 32)}),
        Variant("naive", lower, applies, space={"ITEMS": (1,)}),
    ),
)
