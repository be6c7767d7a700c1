"""Comparisons, boolean logic and selection, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.elementwise import (
    BOOL,
    BROADCASTS,
    binary_examples,
    broadcast_shape,
    infer_compare,
    predicate,
    require_one_type,
)
from coexec.ops.opdef import Example, GradientScope, OpDef, Sample
from coexec.ops.term import grad_term, input_term

BOOLEAN = "the result is boolean"


def infer_logical(call: OpCall) -> Sequence[TensorType]:
    if require_one_type(call, (0, 1)) != BOOL:
        raise ValueError(f"{call.identifier} needs booleans, got {call.input(0).dtype.name}")
    return (TensorType(broadcast_shape(call), BOOL),)


def infer_where(call: OpCall) -> Sequence[TensorType]:
    if call.input(0).dtype != BOOL:
        raise ValueError(f"Where: the condition must be boolean, got {call.input(0).dtype.name}")
    return (TensorType(broadcast_shape(call), require_one_type(call, (1, 2))),)


def where(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    condition, yes, no = map(np.asarray, operands)
    return (np.where(condition, yes, no),)


def where_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    condition, dy = input_term(g), grad_term(g)
    yes = condition.where(dy, 0).value if g.wanted[1] else None
    no = condition.where(0, dy).value if g.wanted[2] else None
    return None, yes, no


def few(dtype: str) -> tuple[Example, ...]:
    """Operands of few distinct values, so that equality happens."""
    return tuple(
        Example((Sample(a, dtype, 0, 3), Sample(b, dtype, 0, 3)), gradient=False)
        for a, b in BROADCASTS[:6]
    )


def compare(op_type: str, function: Callable[..., Any]) -> OpDef:
    return OpDef(
        op_type,
        infer_compare,
        predicate(function),
        not_differentiable=BOOLEAN,
        examples=(
            *(Example(e.inputs, gradient=False) for e in binary_examples()),
            *few("int32"),
            *few("int64")[:2],
            *few("uint8")[:2],
            *(few("bool")[:2] if op_type == "Equal" else ()),
        ),
    )


def logical(op_type: str, function: Callable[..., Any]) -> OpDef:
    return OpDef(
        op_type,
        infer_logical,
        predicate(function),
        not_differentiable=BOOLEAN,
        examples=binary_examples(0, 2, "bool"),
        in_place=((0, 0), (0, 1)),
    )


def where_example(
    condition: tuple[int, ...],
    yes: tuple[int, ...],
    no: tuple[int, ...],
    dtype: str = "float32",
) -> Example:
    operands = (Sample(condition, "bool"), Sample(yes, dtype, -9, 9), Sample(no, dtype, -9, 9))
    return Example(operands, gradient=dtype == "float32")


WHERE_EXAMPLES = (
    where_example((3, 5), (3, 5), (3, 5)),
    where_example((67,), (67,), ()),
    where_example((4, 19), (), (4, 19)),
    where_example((4, 19), (19,), (4, 1)),
    where_example((1, 5), (3, 1, 1), (2, 1)),
    where_example((2, 1, 3, 1, 2), (1, 5, 1, 2, 1), (5, 3, 2, 2)),
    where_example((), (7,), (7,)),
    where_example((3, 5), (3, 5), (5,), "int64"),
    where_example((3, 5), (3, 5), (5,), "uint8"),
    where_example((7,), (7,), (1,), "bool"),
)

OPS = (
    compare("Equal", np.equal),
    compare("Less", np.less),
    compare("LessOrEqual", np.less_equal),
    compare("Greater", np.greater),
    compare("GreaterOrEqual", np.greater_equal),
    logical("And", np.logical_and),
    logical("Or", np.logical_or),
    logical("Xor", np.logical_xor),
    OpDef(
        "Where",
        infer_where,
        where,
        gradient=where_gradient,
        examples=WHERE_EXAMPLES,
        in_place=((0, 1), (0, 2)),
    ),
)
