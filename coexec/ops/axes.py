"""Axes and other operands whose values are known before anything runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall
from coexec.ops.opdef import GradientScope


def normalize_axis(axis: int, rank: int) -> int:
    """``axis`` counted from the front.

    Raises:
        ValueError: the axis is outside [-rank, rank).
    """
    if not -rank <= axis < rank:
        raise ValueError(f"axis {axis} is out of range for rank {rank}")
    return int(axis % rank)


def normalize_axes(axes: Iterable[int], rank: int) -> tuple[int, ...]:
    """All ``axes`` counted from the front, in the given order.

    Raises:
        ValueError: an axis is out of range or named twice.
    """
    result = tuple(normalize_axis(int(axis), rank) for axis in axes)
    if len(set(result)) != len(result):
        raise ValueError(f"axes {result} name an axis twice")
    return result


def known(call: OpCall, index: int, what: str) -> Array:
    """The value of operand ``index``, which must be known before running.

    Raises:
        ValueError: the operand is missing or its value is not known.
    """
    value = call.constant(index)
    if value is None:
        raise ValueError(f"{call.op_type} needs the value of its {what} before running")
    return value


def known_ints(call: OpCall, index: int, what: str) -> tuple[int, ...]:
    """Like :func:`known`, flattened to Python integers."""
    return tuple(int(v) for v in np.asarray(known(call, index, what)).reshape(-1))


def known_int(call: OpCall, index: int, what: str) -> int:
    """Like :func:`known`, for an operand of one element.

    Raises:
        ValueError: it has another number of elements.
    """
    values = known_ints(call, index, what)
    if len(values) != 1:
        raise ValueError(f"{what} of {call.op_type} must have one element, not {len(values)}")
    return values[0]


def int64s(values: Sequence[int]) -> Array:
    """A 1-D int64 array (also of no elements): the usual form of shapes and axes."""
    return np.asarray(tuple(values), dtype=np.int64)


def reshape_to(g: GradientScope, value: ir.Value, shape: Sequence[int]) -> ir.Value:
    """Emit a Reshape to a static ``shape``, unless ``value`` has it already."""
    if g.type_of(value).shape == tuple(shape):
        return value
    # allowzero: a dimension of 0 means 0 here, never "copy from the input".
    target = g.constant(int64s(shape), "int64")
    return g.op("Reshape", [value, target], {"allowzero": 1} if 0 in shape else None)


def sum_over(g: GradientScope, value: ir.Value, axes: Sequence[int]) -> ir.Value:
    """Emit a ReduceSum that drops ``axes``, unless there are none."""
    if not axes:
        return value
    return g.op("ReduceSum", [value, g.constant(int64s(axes), "int64")], {"keepdims": 0})
