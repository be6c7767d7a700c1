"""Operators that make tensors out of shapes and numbers: Constant, Shape, Range, OneHot, ..."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.axes import int64s, known, known_int, known_ints, normalize_axis
from coexec.ops.opdef import Example, GradientScope, OpDef, Sample

INT64 = np.dtype(np.int64)

_CONSTANT_FORMS: Mapping[str, Callable[[Any], Array]] = {
    "value": np.asarray,
    "sparse_value": np.asarray,
    "value_int": lambda value: np.asarray(value, np.int64),
    "value_ints": lambda value: np.asarray(value, np.int64),
    "value_float": lambda value: np.asarray(value, np.float32),
    "value_floats": lambda value: np.asarray(value, np.float32),
    "value_string": lambda value: np.asarray(value, object),
    "value_strings": lambda value: np.asarray(value, object),
}
"""The attribute forms of Constant; tensors (dense or sparse) arrive as dense NumPy arrays."""


def constant_value(call: OpCall) -> Array:
    """The tensor a Constant stands for.

    Raises:
        ValueError: not exactly one of the attribute forms is present.
    """
    present = [name for name in _CONSTANT_FORMS if name in call.attributes]
    if len(present) != 1:
        raise ValueError(f"Constant needs one value attribute, got {present}")
    return _CONSTANT_FORMS[present[0]](call.attributes[present[0]])


def infer_constant(call: OpCall) -> Sequence[TensorType]:
    return (TensorType.of(constant_value(call)),)


def constant(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return (constant_value(call),)


def fill_value(call: OpCall) -> Array:
    """The element of a ConstantOfShape as a 0-D array (default: float32 zero).

    Raises:
        ValueError: ``value`` has more than one element.
    """
    value = np.asarray(call.attribute("value", np.float32(0)))
    if value.size != 1:
        raise ValueError(f"ConstantOfShape: value must have one element, not {value.size}")
    return value.reshape(())


def infer_constant_of_shape(call: OpCall) -> Sequence[TensorType]:
    shape = known_ints(call, 0, "shape")
    if min(shape, default=0) < 0:
        raise ValueError(f"ConstantOfShape of negative shape {shape}")
    return (TensorType(shape, fill_value(call).dtype),)


def constant_of_shape(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return (np.full(tuple(int(d) for d in operands[0]), fill_value(call)),)


def shape_value(call: OpCall) -> tuple[int, ...]:
    """The dimensions a Shape yields: those from ``start`` to before ``end``."""
    shape = call.input(0).shape
    # Python's slices clamp exactly as ONNX defines start and end.
    return shape[call.attribute("start", 0) : call.attribute("end")]


def infer_shape(call: OpCall) -> Sequence[TensorType]:
    return (TensorType((len(shape_value(call)),), INT64),)


def shape(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return (int64s(np.shape(operands[0])[call.attribute("start", 0) : call.attribute("end")]),)


def infer_size(call: OpCall) -> Sequence[TensorType]:
    call.input(0)
    return (TensorType((), INT64),)


def size(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return (np.asarray(np.size(operands[0]), np.int64),)


def infer_range(call: OpCall) -> Sequence[TensorType]:
    start, limit, delta = (known(call, i, n) for i, n in enumerate(("start", "limit", "delta")))
    kinds = {call.input(i).dtype for i in range(3)}
    if not start.size == limit.size == delta.size == 1 or len(kinds) != 1:
        raise ValueError(f"Range: start, limit and delta must be scalars of one type, not {kinds}")
    # .item() leaves narrow types: an int8 difference must not wrap, a half must not round.
    first, last, step = (v.item() for v in (start, limit, delta))
    if step == 0:
        raise ValueError("Range: delta must not be 0")
    count = _steps(first, last, step)
    return (TensorType((max(count, 0),), call.input(0).dtype),)


def _steps(first: Any, last: Any, step: Any) -> int:
    """ceil((last - first) / step), exactly for integers of any size."""
    if isinstance(first, int):
        return int(-((first - last) // step) if step > 0 else -((last - first) // -step))
    return int(np.ceil((float(last) - float(first)) / float(step)))


def range_(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """start + i * delta; half types in float32 (``stash_type`` 1) and rounded at the end."""
    start, _, delta = (np.asarray(o).reshape(()) for o in operands)
    kind = call.output(0)
    wide = (
        np.dtype(np.float32) if kind.dtype.itemsize == 2 and start.dtype.kind != "i" else kind.dtype
    )
    steps = np.arange(kind.size).astype(wide)
    return ((start.astype(wide) + steps * delta.astype(wide)).astype(kind.dtype),)


def eye_dtype(call: OpCall) -> np.dtype[Any]:
    """Element type of an EyeLike: the ``dtype`` attribute (an ONNX code), else the operand's."""
    code = call.attribute("dtype")
    return call.input(0).dtype if code is None else ir.DataType(code).numpy()


def infer_eye_like(call: OpCall) -> Sequence[TensorType]:
    if call.input(0).rank != 2:
        raise ValueError(f"EyeLike of {call.input(0)}: two dimensions are needed")
    return (TensorType(call.input(0).shape, eye_dtype(call)),)


def eye_like(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    rows, columns = np.shape(operands[0])
    eye = np.eye(rows, columns, k=int(call.attribute("k", 0)), dtype=bool)
    return (eye.astype(eye_dtype(call)),)


def one_hot_axis(call: OpCall) -> int:
    """Where the new dimension stands in the output."""
    return normalize_axis(int(call.attribute("axis", -1)), call.input(0).rank + 1)


def infer_one_hot(call: OpCall) -> Sequence[TensorType]:
    indices, values, axis = call.input(0), call.input(2), one_hot_axis(call)
    depth = known_int(call, 1, "depth")
    if values.shape != (2,) or depth < 0:
        raise ValueError(f"OneHot of depth {depth} with values {values}")
    return (values.with_shape((*indices.shape[:axis], depth, *indices.shape[axis:])),)


def one_hot(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Out-of-range indices give a lane of only the off value, fractions are cut, as ONNX says."""
    indices, depth, (off, on) = operands[0], known_int(call, 1, "depth"), operands[2]
    indices = np.trunc(indices) if indices.dtype.kind == "f" else indices
    axis = one_hot_axis(call)
    targets = np.arange(depth).reshape(depth, *(1,) * (indices.ndim - axis))
    lanes = np.expand_dims(indices, axis)
    # Compared, not added to: unsigned and narrow index types must not wrap.
    hit = (lanes == targets) | (lanes == targets - depth)
    return (np.where(hit, on, off).astype(operands[2].dtype),)


def one_hot_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    """d values: the gradient summed over the places that took the off and the on value."""
    if not g.wanted[2]:
        return (None, None, None)
    kind = g.call.input(2).dtype
    sums = []
    for off, on in ((1, 0), (0, 1)):
        pair = g.constant(np.array([off, on], kind), kind)
        operands = [g.value(0), g.value(1), pair]
        mask = g.op("OneHot", operands, {"axis": one_hot_axis(g.call)})
        picked = g.op("Mul", [g.grad(), mask])
        total = g.op("ReduceSum", [picked], {"keepdims": 0})
        sums.append(g.op("Reshape", [total, g.constant(int64s((1,)), "int64")]))
    return (None, None, g.op("Concat", sums, {"axis": 0}))


_NO_OPERAND = "the output depends on shapes, indices or attributes only"

OPS = (
    OpDef(
        "Constant",
        infer_constant,
        constant,
        not_differentiable=_NO_OPERAND,
        examples=(
            Example((), {"value": np.array([[1.5, -2.0]], np.float32)}, gradient=False),
            Example((), {"value_int": 3}, gradient=False),
            Example((), {"value_ints": (3, 4)}, gradient=False),
            Example((), {"value_float": 0.25}, gradient=False),
            Example((), {"value_floats": (0.25, 7.0)}, gradient=False),
        ),
    ),
    OpDef(
        "ConstantOfShape",
        infer_constant_of_shape,
        constant_of_shape,
        not_differentiable=_NO_OPERAND,
        value_inputs=(0,),
        examples=(
            Example((int64s((3, 5)),), gradient=False),
            Example((int64s(()),), {"value": np.array([7], np.int64)}, gradient=False),
            Example((int64s((2, 33)),), {"value": np.array([-1.5], np.float16)}, gradient=False),
            Example((int64s((4, 0)),), {"value": np.array([True])}, gradient=False),
        ),
    ),
    OpDef(
        "Shape",
        infer_shape,
        shape,
        not_differentiable=_NO_OPERAND,
        examples=(
            Example((Sample((3, 5, 2)),), gradient=False),
            Example((Sample((3, 5, 2)),), {"start": -2, "end": 9}, gradient=False),
            Example((Sample((3, 5)),), {"start": 1, "end": 0}, gradient=False),
        ),
    ),
    OpDef(
        "Size",
        infer_size,
        size,
        not_differentiable=_NO_OPERAND,
        examples=(Example((Sample((3, 5)),), gradient=False),),
    ),
    OpDef(
        "Range",
        infer_range,
        range_,
        not_differentiable=_NO_OPERAND,
        value_inputs=(0, 1, 2),
        examples=(
            Example((np.array(3), np.array(-8), np.array(-2)), gradient=False),
            Example(tuple(np.array(v, np.float32) for v in (0.5, 3, 0.4)), gradient=False),
            Example(tuple(np.array(v, np.float16) for v in (0, 2049, 1)), gradient=False),
            Example((np.array(4), np.array(4), np.array(1)), gradient=False),
        ),
    ),
    OpDef(
        "EyeLike",
        infer_eye_like,
        eye_like,
        not_differentiable=_NO_OPERAND,
        examples=(
            Example((Sample((4, 5)),), gradient=False),
            Example((Sample((5, 3)),), {"k": -1, "dtype": 7}, gradient=False),
            Example((Sample((3, 4), "int32", 0, 9),), {"k": 2, "dtype": 11}, gradient=False),
        ),
    ),
    OpDef(
        "OneHot",
        infer_one_hot,
        one_hot,
        gradient=one_hot_gradient,
        value_inputs=(1,),
        examples=(
            Example((Sample((3, 4), "int64", -5, 6), np.array(5), Sample((2,)))),
            Example((Sample((3,), "int32", 0, 4), np.array([4]), Sample((2,))), {"axis": 0}),
            Example((Sample((2, 3), "uint8", 0, 9), np.array(4), Sample((2,))), {"axis": 1}),
            Example(
                (Sample((2, 3), "float32", -3, 3), np.array(2), Sample((2,), "int64", 0, 9)),
                gradient=False,
            ),
        ),
    ),
)
