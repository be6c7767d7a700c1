"""Mathematical functions of one operand, applied to each element."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall
from coexec.ops.elementwise import (
    TRANSCENDENTAL,
    infer_bool,
    infer_float,
    infer_same,
    numpy_reference,
    predicate,
    unary_examples,
    widen,
)
from coexec.ops.opdef import Example, GradientRule, GradientScope, OpDef, Sample
from coexec.ops.term import Term, grad_term, input_term, output_term

STEP = "piecewise constant: the derivative is zero almost everywhere"
INTEGER = "defined on integers or booleans only"


def from_input(slope: Callable[[Term], Term]) -> GradientRule:
    """Gradient dy * slope(x)."""

    def gradient(g: GradientScope) -> Sequence[ir.Value | None]:
        return ((grad_term(g) * slope(input_term(g))).value,)

    return gradient


def from_output(slope: Callable[[Term], Term]) -> GradientRule:
    """Gradient dy * slope(y): nothing of the operand need be kept."""

    def gradient(g: GradientScope) -> Sequence[ir.Value | None]:
        return ((grad_term(g) * slope(output_term(g))).value,)

    return gradient


def neg_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    return ((-grad_term(g)).value,)


def sqrt_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    return ((grad_term(g) * 0.5 / output_term(g)).value,)


def log_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    return ((grad_term(g) / input_term(g)).value,)


def inverse_root(square: Callable[[Term], Term]) -> GradientRule:
    """Gradient dy / sqrt(square(x)): the inverse functions asin, asinh, acosh."""

    def gradient(g: GradientScope) -> Sequence[ir.Value | None]:
        return ((grad_term(g) / square(input_term(g)).op("Sqrt")).value,)

    return gradient


def inverse_square(square: Callable[[Term], Term]) -> GradientRule:
    """Gradient dy / square(x): atan, atanh."""

    def gradient(g: GradientScope) -> Sequence[ir.Value | None]:
        return ((grad_term(g) / square(input_term(g))).value,)

    return gradient


def acos_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    x = input_term(g)
    return ((-(grad_term(g) / (1 - x * x).op("Sqrt"))).value,)


def is_inf(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Infinities of the detected signs."""
    x = widen(operands[0])
    found = np.zeros(x.shape, np.bool_)
    if call.attribute("detect_positive", 1):
        found |= np.isposinf(x)
    if call.attribute("detect_negative", 1):
        found |= np.isneginf(x)
    return (found,)


def integers(low: int = -9, high: int = 9, dtype: str = "int32") -> tuple[Example, ...]:
    return tuple(
        Example((Sample(shape, dtype, low, high),), gradient=False) for shape in ((3, 5), (67,))
    )


SPECIAL = (
    Example((np.array([1, np.nan, -np.inf, np.inf, 0, -2], np.float32),), gradient=False),
    Example((Sample((3, 7)),), gradient=False),
    Example((np.array(np.nan, np.float32),), gradient=False),
)


def smooth(
    op_type: str,
    function: Callable[..., Any],
    gradient: GradientRule,
    low: float = -2.0,
    high: float = 2.0,
) -> OpDef:
    """A differentiable function of floats, sampled in [low, high)."""
    return OpDef(
        op_type,
        infer_float,
        numpy_reference(function),
        gradient=gradient,
        work=TRANSCENDENTAL,
        examples=unary_examples(low, high),
        in_place=((0, 0),),
    )


def nothing_flows(_scope: GradientScope) -> tuple[None]:
    """The derivative of a piecewise constant function is zero almost everywhere."""
    return (None,)


def step(op_type: str, function: Callable[..., Any], examples: tuple[Example, ...]) -> OpDef:
    """A piecewise constant function."""
    return OpDef(
        op_type,
        infer_same,
        numpy_reference(function),
        gradient=nothing_flows,
        examples=examples,
        in_place=((0, 0),),
    )


HALVES = Example((np.array([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5], np.float32),), gradient=False)

OPS = (
    OpDef(
        "Neg",
        infer_same,
        numpy_reference(np.negative),
        gradient=neg_gradient,
        examples=(*unary_examples(), *integers()),
        in_place=((0, 0),),
    ),
    OpDef(
        "Abs",
        infer_same,
        numpy_reference(np.abs),
        gradient=from_input(lambda x: x.op("Sign")),
        examples=(*unary_examples(), *integers(), *integers(0, 9, "uint8")),
        in_place=((0, 0),),
    ),
    smooth("Sqrt", np.sqrt, sqrt_gradient, 0.1, 4),
    smooth("Exp", np.exp, from_output(lambda y: y)),
    smooth("Log", np.log, log_gradient, 0.1, 4),
    smooth("Reciprocal", np.reciprocal, from_output(lambda y: -(y * y)), 0.3, 2),
    smooth("Sin", np.sin, from_input(lambda x: x.op("Cos")), -7, 7),
    smooth("Cos", np.cos, from_input(lambda x: -x.op("Sin")), -7, 7),
    smooth("Tan", np.tan, from_output(lambda y: 1 + y * y), -1, 1),
    smooth("Asin", np.arcsin, inverse_root(lambda x: 1 - x * x), -0.9, 0.9),
    smooth("Acos", np.arccos, acos_gradient, -0.9, 0.9),
    smooth("Atan", np.arctan, inverse_square(lambda x: 1 + x * x)),
    smooth("Sinh", np.sinh, from_input(lambda x: x.op("Cosh"))),
    smooth("Cosh", np.cosh, from_input(lambda x: x.op("Sinh"))),
    smooth("Asinh", np.arcsinh, inverse_root(lambda x: 1 + x * x)),
    smooth("Acosh", np.arccosh, inverse_root(lambda x: x * x - 1), 1.2, 4),
    smooth("Atanh", np.arctanh, inverse_square(lambda x: 1 - x * x), -0.9, 0.9),
    step("Floor", np.floor, unary_examples(-9, 9)),
    step("Ceil", np.ceil, unary_examples(-9, 9)),
    step("Round", np.rint, (*unary_examples(-9, 9), HALVES)),
    step("Sign", np.sign, (*unary_examples(), *integers(), *integers(0, 3, "uint8"))),
    OpDef("IsNaN", infer_bool, predicate(np.isnan), not_differentiable=STEP, examples=SPECIAL),
    OpDef(
        "IsInf",
        infer_bool,
        is_inf,
        not_differentiable=STEP,
        examples=(
            *SPECIAL,
            Example(SPECIAL[0].inputs, {"detect_negative": 0}, gradient=False),
            Example(SPECIAL[0].inputs, {"detect_positive": 0}, gradient=False),
        ),
    ),
    OpDef(
        "Not",
        infer_bool,
        predicate(np.logical_not),
        not_differentiable=INTEGER,
        examples=integers(0, 2, "bool"),
        in_place=((0, 0),),
    ),
    OpDef(
        "BitwiseNot",
        infer_same,
        numpy_reference(np.bitwise_not),
        not_differentiable=INTEGER,
        examples=(*integers(), *integers(0, 9, "uint8"), *integers(-9, 9, "int64")),
        in_place=((0, 0),),
    ),
)
