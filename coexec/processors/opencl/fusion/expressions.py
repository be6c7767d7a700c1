"""Operators that may stand in a chain, as functions of registers in OpenCL C."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from coexec.core.types import OpCall
from coexec.processors.opencl.kernels import binary, unary

BOOL = np.dtype(np.bool_)
FLOATS = frozenset(map(np.dtype, (np.float16, np.float32, np.float64)))
LOGICAL = frozenset({"Not", "And", "Or", "Xor", "Equal", "Where"})
"""Operators that take booleans."""

StepFunction = tuple[tuple[str, ...], str]
"""Parameter names and an expression in them, in V (the compute type or a vector of it) and in
NUMBER(V, v), which is 1 where v is true."""


def _one(call: OpCall) -> StepFunction:
    rule = unary.WITH_ATTRIBUTES.get(call.op_type)
    return ("x",), rule(call) if rule else unary.EXPRESSIONS[call.op_type]


def _two(call: OpCall) -> StepFunction:
    text = binary.expression(call)
    return ("a", "b"), f"({text} / (V)2)" if call.op_type == "Mean" else text


def _power(call: OpCall) -> StepFunction:
    """A known exponent needs no ``pow``; it stays a parameter that the text leaves out."""
    known = binary.known_power(call)
    return (("x", "b"), known) if known is not None else _two(call)


def _not(_call: OpCall) -> StepFunction:
    return ("x",), "(!(x))"


def _clip(call: OpCall) -> StepFunction:
    """NaN stays NaN, as in unary.cl."""
    names, text = ["x"], "x"
    if call.has_input(1):
        names.append("low")
        text = "((x) < (low) ? (low) : (x))"
    if call.has_input(2):
        names.append("high")
        text = f"({text} > (high) ? (high) : {text})"
    return tuple(names), text


def _where(_call: OpCall) -> StepFunction:
    return ("c", "a", "b"), "((c) ? (a) : (b))"


def _cast(call: OpCall) -> StepFunction:
    source, target = call.input(0).dtype, call.output(0).dtype
    if source == target:
        return ("x",), "(x)"
    return ("x",), "((x) != (V)0)" if target == BOOL else "NUMBER(V, x)"


NEVER = frozenset({"BitwiseNot", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Mod", "BitShift"})
"""Operators of integers, or whose expression needs functions that a chain does not have."""

RULES: Mapping[str, Callable[[OpCall], StepFunction]] = {
    **dict.fromkeys((*unary.EXPRESSIONS, *unary.WITH_ATTRIBUTES), _one),
    **dict.fromkeys((*binary.EXPRESSIONS, *binary.TYPED), _two),
    "Not": _not,
    "Pow": _power,
    "Clip": _clip,
    "Where": _where,
    "Cast": _cast,
}


def step_function(call: OpCall) -> StepFunction:
    """The function of a step."""
    return RULES[call.identifier](call)


def number_type_of(call: OpCall) -> np.dtype[np.generic] | None:
    """Element type of the operands and the result that are not boolean; ``None`` if all are.

    Raises:
        ValueError: there are several.
    """
    kinds = {k.dtype for k in (*call.inputs, *call.outputs) if k is not None} - {BOOL}
    if len(kinds) > 1:
        raise ValueError(f"{call.identifier}: operands of several element types")
    return next(iter(kinds), None)


def can_stand_in_chain(call: OpCall) -> bool:
    """Whether a chain may contain this call: floats of one type, and booleans."""
    if call.identifier not in RULES or call.identifier in NEVER or len(call.outputs) != 1:
        return False
    if call.identifier in (*binary.EXPRESSIONS, *binary.TYPED) and len(call.inputs) != 2:
        return False
    try:
        dtype = number_type_of(call)
    except ValueError:
        return False
    if dtype is not None and dtype not in FLOATS:
        return False
    takes_booleans = any(k is not None and k.dtype == BOOL for k in call.inputs)
    logical = call.identifier in LOGICAL or call.identifier == "Cast"
    return (logical or not takes_booleans) and call.output(0).size > 0
