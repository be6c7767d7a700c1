"""Arithmetic of two or more operands with broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.elementwise import (
    TRANSCENDENTAL,
    binary_examples,
    broadcast_shape,
    computed,
    infer_broadcast,
    is_float,
    numpy_reference,
    require_one_type,
)
from coexec.ops.opdef import Example, GradientRule, GradientScope, OpDef, Sample, Work
from coexec.ops.term import Term, grad_term, input_term, output_term

INTEGER = "defined on integers only"
BOTH = ((0, 0), (0, 1))
"""A binary operator may write over either operand of the result's type."""


def divide(a: Array, b: Array) -> Array:
    """Quotient; integers truncate towards zero, and give 0 for a divisor of 0."""
    if a.dtype.kind not in "iu":
        return np.asarray(np.divide(a, b))
    floor = np.asarray(np.floor_divide(a, b))
    inexact = (a - floor * b != 0) & ((a < 0) != (b < 0)) & (b != 0)
    return np.asarray(floor + inexact.astype(floor.dtype))


def power(a: Array, b: Array) -> Array:
    """a to the power b; integer bases with other exponents go through float64."""
    if a.dtype.kind == "f":
        return np.asarray(np.power(a, b.astype(a.dtype)))
    if b.dtype.kind in "iu" and not np.any(b < 0):
        return np.asarray(np.power(a, b.astype(a.dtype)))
    return np.asarray(np.power(a.astype(np.float64), b.astype(np.float64)))


def mod(call: OpCall, a: Array, b: Array) -> Array:
    """Remainder with the sign of the divisor, or of the dividend if ``fmod`` is set."""
    return np.fmod(a, b) if call.attribute("fmod", 0) else np.mod(a, b)


def shift(call: OpCall, a: Array, b: Array) -> Array:
    return np.left_shift(a, b) if shifts_left(call) else np.right_shift(a, b)


def shifts_left(call: OpCall) -> bool:
    """Direction of a BitShift; ``ValueError`` unless it is LEFT or RIGHT."""
    direction = call.attribute("direction")
    if direction not in ("LEFT", "RIGHT"):
        raise ValueError(f"BitShift: direction must be LEFT or RIGHT, got {direction!r}")
    return bool(direction == "LEFT")


def folded(function: Callable[[Array, Array], Array]) -> Callable[..., Array]:
    """Left fold over any number of operands."""
    return lambda *operands: reduce(function, operands)


def infer_power(call: OpCall) -> Sequence[TensorType]:
    """Result in the type of the base; the exponent's may differ."""
    return (TensorType(broadcast_shape(call), call.input(0).dtype),)


def infer_integer(call: OpCall) -> Sequence[TensorType]:
    (kind,) = infer_broadcast(call)
    if kind.dtype.kind not in "iu":
        raise ValueError(f"{call.identifier} needs integers, got {kind.dtype.name}")
    return (kind,)


def infer_shift(call: OpCall) -> Sequence[TensorType]:
    shifts_left(call)
    return infer_integer(call)


def infer_variadic(call: OpCall) -> Sequence[TensorType]:
    """One or more operands of one type."""
    if not call.inputs:
        raise ValueError(f"{call.identifier} needs at least one operand")
    require_one_type(call, range(len(call.inputs)))
    return infer_broadcast(call)


def variadic_work(call: OpCall) -> Work:
    """One operation for each operand but the first."""
    y = call.output(0)
    moved = sum(t.nbytes for t in call.inputs if t is not None) + y.nbytes
    return Work(max(len(call.inputs) - 1, 1) * y.size, moved)


def add_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    return g.grad(), g.grad()


def sub_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    dy = grad_term(g)
    return dy.value, (-dy).value if g.wanted[1] else None


def mul_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    a, b, dy = input_term(g), input_term(g, 1), grad_term(g)
    return (dy * b).value if g.wanted[0] else None, (dy * a).value if g.wanted[1] else None


def div_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    scaled = grad_term(g) / input_term(g, 1)
    return scaled.value, (-(scaled * output_term(g))).value if g.wanted[1] else None


def pow_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    """d(a^b) = b a^(b-1) da + a^b log(a) db, with log 0 taken as 0 as a^b vanishes there."""
    a, dy = input_term(g), grad_term(g)
    dtype = a.type.dtype
    if not is_float(dtype):
        return None, None
    raw = input_term(g, 1)
    known = g.call.constant(1)
    if known is None:
        b = raw.cast(dtype)
        lowered = b - 1
    else:  # constants stay constants: kernels do better on a^1 than on a general power
        b = Term(g, g.constant(np.asarray(known).astype(dtype), dtype))
        lowered = Term(g, g.constant(np.asarray(known).astype(dtype) - dtype.type(1), dtype))
    da = (dy * (b * a.op("Pow", lowered))).value if g.wanted[0] else None
    if not (g.wanted[1] and is_float(raw.type.dtype)):
        return da, None
    logarithm = (a > 0).where(a, 1).op("Log")
    return da, (dy * output_term(g) * logarithm).cast(raw.type.dtype).value


def mod_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    """a - b * q with the quotient q constant almost everywhere."""
    a, b, y, dy = input_term(g), input_term(g, 1), output_term(g), grad_term(g)
    quotient = ((a - y) / b).op("Round")
    return dy.value, (-(dy * quotient)).value if g.wanted[1] else None


def extreme_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    """The gradient goes to the first operand that attains the result."""
    y, dy = output_term(g), grad_term(g)
    if len(g.inputs) == 1:
        return (dy.value,)
    gradients: list[ir.Value | None] = []
    taken: Term | None = None
    for index in range(len(g.inputs)):
        attains = input_term(g, index).equals(y)
        first = attains if taken is None else attains.op("And", taken.op("Not"))
        taken = attains if taken is None else taken.op("Or", attains)
        gradients.append(first.where(dy, 0).value if g.wanted[index] else None)
    return tuple(gradients)


def sum_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    return tuple(g.grad() for _ in g.inputs)


def mean_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    share = grad_term(g) * (1 / len(g.inputs))
    return tuple(share.value for _ in g.inputs)


def integer_examples(**attributes: Any) -> tuple[Example, ...]:
    return (
        *binary_examples(-9, 9, "int32", **attributes)[:5],
        *binary_examples(0, 9, "uint8", **attributes)[:1],
        *binary_examples(-9, 9, "int64", **attributes)[:1],
    )


NONZERO = (
    Example((Sample((3, 5), "int32", -9, 9), Sample((5,), "int32", 1, 4)), gradient=False),
    Example((Sample((3, 5), "int8", -9, 9), np.array(-3, np.int8)), gradient=False),
    Example((Sample((67,), "uint8", 0, 255), Sample((67,), "uint8", 1, 9)), gradient=False),
    Example((Sample((7,), "int64", -9, 9), np.array([2], np.int64)), gradient=False),
)
MODS = (
    Example((Sample((3, 5), low=-9, high=9), Sample((3, 5), low=1, high=3))),
    Example((Sample((67,), low=-9, high=9), Sample((), low=-3, high=-1))),
    Example((Sample((2, 1, 5), low=-9, high=9), Sample((3, 1), low=-3, high=-1))),
)
VARIADIC = (
    Example((Sample((3, 5)), Sample((3, 5)), Sample((3, 5)))),
    Example((Sample((2, 3, 7)),)),
    Example((Sample((2, 1, 5)), Sample((3, 1)), Sample(()), Sample((2, 3, 5)))),
    Example((Sample((4, 17)), Sample((17,)))),
)
POWERS = (
    *(
        Example((Sample(a, low=0.2, high=2), Sample(b, low=-2, high=2)))
        for a, b in (((3, 5), (3, 5)), ((67,), ()), ((4, 19), (19,)), ((3, 1), (2, 1, 5)))
    ),
    Example((Sample((3, 5), low=0.2, high=2), Sample((5,), "int32", -2, 4))),
    Example((Sample((3, 5), low=-2, high=2), np.array(2, np.int64))),
    Example((Sample((7,), low=-2, high=2), np.array(3, np.float32))),
    Example((Sample((3, 5), "int32", -4, 4), Sample((5,), "int32", 0, 5)), gradient=False),
    Example((Sample((5,), "int64", 1, 4), np.array(2, np.float32)), gradient=False),
)


def binary(op_type: str, function: Callable[..., Any], gradient: GradientRule) -> OpDef:
    """A differentiable operator of two operands."""
    integers = NONZERO if op_type == "Div" else integer_examples()
    return OpDef(
        op_type,
        infer_broadcast,
        numpy_reference(function),
        gradient=gradient,
        examples=(*binary_examples(0.5 if op_type == "Div" else -2, 2), *integers),
        in_place=BOTH,
    )


def bitwise(op_type: str, function: Callable[..., Any]) -> OpDef:
    return OpDef(
        op_type,
        infer_integer,
        numpy_reference(function),
        not_differentiable=INTEGER,
        examples=integer_examples(),
        in_place=BOTH,
    )


def variadic(op_type: str, function: Callable[..., Any], gradient: GradientRule) -> OpDef:
    """An operator of any number of operands; not in place, as an operand may occur twice."""
    integers = () if op_type == "Mean" else integer_examples()
    if op_type == "Sum":
        integers = ()
    return OpDef(
        op_type,
        infer_variadic,
        numpy_reference(function),
        gradient=gradient,
        work=variadic_work,
        examples=(*VARIADIC, *binary_examples(), *integers),
    )


OPS = (
    binary("Add", np.add, add_gradient),
    binary("Sub", np.subtract, sub_gradient),
    binary("Mul", np.multiply, mul_gradient),
    binary("Div", divide, div_gradient),
    OpDef(
        "Pow",
        infer_power,
        numpy_reference(power),
        gradient=pow_gradient,
        work=TRANSCENDENTAL,
        examples=POWERS,
        in_place=BOTH,
    ),
    OpDef(
        "Mod",
        infer_broadcast,
        computed(mod),
        gradient=mod_gradient,
        examples=(
            *(Example(e.inputs, {"fmod": 1}) for e in binary_examples(0.5, 9)[:4]),
            *(Example(e.inputs) for e in MODS),
            *(Example(e.inputs, {"fmod": 1}) for e in MODS),
            *NONZERO,
            *(Example(e.inputs, {"fmod": 1}, gradient=False) for e in NONZERO),
        ),
        in_place=BOTH,
    ),
    variadic("Min", folded(np.minimum), extreme_gradient),
    variadic("Max", folded(np.maximum), extreme_gradient),
    variadic("Sum", folded(np.add), sum_gradient),
    variadic("Mean", lambda *x: folded(np.add)(*x) / len(x), mean_gradient),
    OpDef(
        "BitShift",
        infer_shift,
        computed(shift),
        not_differentiable=INTEGER,
        examples=tuple(
            Example(
                (Sample((3, 5), dtype, 0, 99), Sample((5,), dtype, 0, 9)),
                {"direction": direction},
                gradient=False,
            )
            for direction in ("LEFT", "RIGHT")
            for dtype in ("uint8", "uint32", "uint64")
        ),
        in_place=BOTH,
    ),
    bitwise("BitwiseAnd", np.bitwise_and),
    bitwise("BitwiseOr", np.bitwise_or),
    bitwise("BitwiseXor", np.bitwise_xor),
)
