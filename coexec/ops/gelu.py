"""Gelu, exact (``none``) and by tanh, and its fused gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.elementwise import (
    computed,
    erf_of,
    infer_float,
    require_one_type,
    unary_examples,
)
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import COEXEC, Example, GradientScope, OpDef, Sample, streaming_work

TANH_SCALE = math.sqrt(2 / math.pi)
TANH_CUBE = 0.044715


def normal_cdf(x: Array) -> Array:
    """Distribution function of the standard normal."""
    return 0.5 * (1 + erf_of(x * math.sqrt(0.5)))


def _tanh_part(x: Array) -> Array:
    return np.tanh(TANH_SCALE * (x + TANH_CUBE * x * x * x))


def uses_tanh(call: OpCall) -> bool:
    """Which form; ``ValueError`` for an ``approximate`` that ONNX does not know."""
    form = call.attribute("approximate", "none")
    if form not in ("none", "tanh"):
        raise ValueError(f"{call.identifier}: approximate must be none or tanh, got {form!r}")
    return bool(form == "tanh")


def gelu(call: OpCall, x: Array) -> Array:
    return np.asarray(x * (0.5 * (1 + _tanh_part(x)) if uses_tanh(call) else normal_cdf(x)))


def gelu_slope(call: OpCall, dy: Array, x: Array) -> Array:
    """dy times the derivative of Gelu at x."""
    if uses_tanh(call):
        t = _tanh_part(x)
        inner = TANH_SCALE * (1 + 3 * TANH_CUBE * x * x)
        return np.asarray(dy * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * inner))
    density = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return np.asarray(dy * (normal_cdf(x) + x * density))


def infer_gelu(call: OpCall) -> Sequence[TensorType]:
    uses_tanh(call)
    return infer_float(call)


def infer_gelu_grad(call: OpCall) -> Sequence[TensorType]:
    uses_tanh(call)
    require_one_type(call, (0, 1))
    if call.input(0).shape != call.input(1).shape:
        raise ValueError(f"GeluGrad: {call.input(0)} and {call.input(1)} must be of one shape")
    return (call.input(0),)


def gelu_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    form = g.call.attribute("approximate", "none")
    return (g.op("GeluGrad", [g.grad(), g.value(0)], {"approximate": form}, domain=COEXEC),)


def gelu_grad_body(call: OpCall) -> ir.Function:
    """GeluGrad(dy, x) in standard operators."""
    b = FunctionBuilder(call)
    dy, x = b.inputs
    dtype = call.input(1).dtype

    def num(value: float) -> ir.Value:
        return b.constant(value, dtype)

    square = b.op("Mul", [x, x])
    if uses_tanh(call):
        cubic = b.op("Add", [num(1), b.op("Mul", [num(TANH_CUBE), square])])
        t = b.op("Tanh", [b.op("Mul", [b.op("Mul", [num(TANH_SCALE), x]), cubic])])
        cdf = b.op("Mul", [num(0.5), b.op("Add", [num(1), t])])
        steep = b.op("Sub", [num(1), b.op("Mul", [t, t])])
        inner = b.op("Add", [num(1), b.op("Mul", [num(3 * TANH_CUBE), square])])
        density = b.op("Mul", [num(0.5 * TANH_SCALE), b.op("Mul", [steep, inner])])
    else:
        scaled = b.op("Mul", [x, num(math.sqrt(0.5))])
        cdf = b.op("Mul", [num(0.5), b.op("Add", [num(1), b.op("Erf", [scaled])])])
        bell = b.op("Exp", [b.op("Mul", [num(-0.5), square])])
        density = b.op("Mul", [num(1 / math.sqrt(2 * math.pi)), bell])
    slope = b.op("Add", [cdf, b.op("Mul", [x, density])])
    return b.function([b.op("Mul", [dy, slope])])


def _grad_examples() -> tuple[Example, ...]:
    shapes: tuple[tuple[int, ...], ...] = ((3, 5), (67,), (2, 3, 7))
    return tuple(
        Example((Sample(shape), Sample(shape, low=-3, high=3)), attributes)
        for shape in shapes
        for attributes in _FORMS
    )


_FORMS: tuple[dict[str, Any], ...] = ({}, {"approximate": "tanh"})

GELU = OpDef(
    "Gelu",
    infer_gelu,
    computed(gelu),
    gradient=gelu_gradient,
    work=streaming_work(32),
    examples=(*unary_examples(-3, 3), *unary_examples(-3, 3, approximate="tanh")),
    in_place=((0, 0),),
)
GELU_GRAD = OpDef(
    "GeluGrad",
    infer_gelu_grad,
    computed(gelu_slope),
    domain=COEXEC,
    not_differentiable="second derivatives are not supported",
    work=streaming_work(48),
    examples=_grad_examples(),
    body=gelu_grad_body,
    in_place=((0, 0), (0, 1)),
)
