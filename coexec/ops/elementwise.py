"""What elementwise operators share: type rules, arithmetic of narrow floats, examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.opdef import Example, InferRule, Reference, Sample, streaming_work

BOOL = np.dtype(np.bool_)
BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
NARROW = (np.dtype(np.float16), BFLOAT16)
"""Float types whose references compute in float32 and round once, at the end."""

TRANSCENDENTAL = streaming_work(16)
"""Work of exp, log, tanh, ...: about the operations of their usual polynomial."""


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether gradients can flow through a tensor of this type."""
    return dtype.kind == "f" or dtype == BFLOAT16


def widen(operand: Any) -> Array:
    """The operand as an array, float32 where its type is narrower than that."""
    array = np.asarray(operand)
    return array.astype(np.float32) if array.dtype in NARROW else array


def erf_of(x: Array) -> Array:
    """The error function, each element by the C library."""
    return np.asarray(np.frompyfunc(math.erf, 1, 1)(x)).astype(x.dtype)


def infer_same(call: OpCall) -> Sequence[TensorType]:
    """Output like input 0."""
    return (call.input(0),)


def infer_bool(call: OpCall) -> Sequence[TensorType]:
    """Output of input 0's shape, boolean."""
    return (TensorType(call.input(0).shape, BOOL),)


def broadcast_shape(call: OpCall, positions: Sequence[int] | None = None) -> tuple[int, ...]:
    """Common shape of the present inputs under ONNX (NumPy) multidirectional broadcasting."""
    chosen = range(len(call.inputs)) if positions is None else positions
    shapes = [call.input(i).shape for i in chosen]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        listed = ", ".join(map(str, shapes))
        raise ValueError(f"{call.identifier}: shapes do not broadcast: {listed}") from None


def require_one_type(call: OpCall, positions: Sequence[int]) -> np.dtype[Any]:
    """The element type that the inputs at ``positions`` must have in common."""
    kinds = {call.input(i).dtype for i in positions}
    if len(kinds) != 1:
        names = ", ".join(sorted(kind.name for kind in kinds))
        raise ValueError(f"{call.identifier}: operands of different element types: {names}")
    return kinds.pop()


def infer_broadcast(call: OpCall) -> Sequence[TensorType]:
    """Operands of one element type, broadcast together."""
    dtype = require_one_type(call, range(len(call.inputs)))
    return (TensorType(broadcast_shape(call), dtype),)


def infer_compare(call: OpCall) -> Sequence[TensorType]:
    """Operands of one element type, broadcast together, to booleans."""
    require_one_type(call, range(len(call.inputs)))
    return (TensorType(broadcast_shape(call), BOOL),)


def require_float(rule: InferRule) -> InferRule:
    """``rule`` for operators that ONNX defines on floating-point tensors alone."""

    def infer(call: OpCall) -> Sequence[TensorType]:
        if not is_float(call.input(0).dtype):
            kind = call.input(0).dtype.name
            raise ValueError(f"{call.identifier}: needs a floating-point operand, got {kind}")
        return rule(call)

    return infer


infer_float = require_float(infer_same)
"""Output like input 0, which must be floating-point."""


def computed(function: Callable[..., Any]) -> Reference:
    """Reference ``function(call, *operands)`` in the operands' own type, float32 if narrower.

    The result is rounded to operand 0's type. Infinities and NaN are results, not warnings.
    """

    def reference(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
        with np.errstate(all="ignore"):
            wide = [None if o is None else widen(o) for o in operands]
            result = np.asarray(function(call, *wide))
        return (result.astype(np.asarray(operands[0]).dtype, copy=False),)

    return reference


def numpy_reference(function: Callable[..., Any]) -> Reference:
    """Reference that applies a NumPy function which needs no attribute."""
    return computed(lambda call, *operands: function(*operands))


def predicate(function: Callable[..., Any]) -> Reference:
    """Reference of an operator with a boolean result."""

    def reference(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
        with np.errstate(all="ignore"):
            return (np.asarray(function(*map(widen, operands)), dtype=np.bool_),)

    return reference


def unary_examples(low: float = -2.0, high: float = 2.0, **attributes: Any) -> tuple[Example, ...]:
    """Float operands of odd, scalar and two-tile shapes."""
    shapes: tuple[tuple[int, ...], ...] = ((3, 5), (2, 3, 7, 5), (), (67,))
    return tuple(
        Example((Sample(shape, low=low, high=high),), dict(attributes)) for shape in shapes
    )


BROADCASTS: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = (
    ((3, 5), (3, 5)),
    ((67,), ()),
    ((), (3, 7)),
    ((4, 19), (19,)),
    ((2, 3, 5, 7), (3, 1, 1)),
    ((3, 1, 5), (1, 4, 1)),
    ((2, 1, 3, 1, 2), (1, 5, 1, 2, 1)),
    ((1, 3, 1, 2, 1, 5), (2, 1, 3, 1, 2, 1)),
)
"""Operand shapes of binary examples: equal, scalar, rows, channels, outer products, rank 6."""


def binary_examples(
    low: float = -2.0, high: float = 2.0, dtype: str = "float32", **attributes: Any
) -> tuple[Example, ...]:
    """Two operands over all :data:`BROADCASTS`; no gradient check for integer types."""
    return tuple(
        Example(
            (Sample(a, dtype, low, high), Sample(b, dtype, low, high)),
            dict(attributes),
            gradient=dtype.startswith("float"),
        )
        for a, b in BROADCASTS
    )
