"""Operators that give a tensor another shape: no data moves."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.axes import int64s, known_ints, normalize_axes, reshape_to
from coexec.ops.opdef import Example, GradientScope, OpDef, Sample, Work


def view_reference(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Input 0 in the inferred shape."""
    return (np.reshape(operands[0], call.output(0).shape),)


def view_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    """The gradient in the shape of input 0; shapes and axes get none."""
    back = reshape_to(g, g.grad(), g.call.input(0).shape)
    return (back, *(None for _ in g.inputs[1:]))


def no_work(call: OpCall) -> Work:
    """Nothing is computed and nothing moves."""
    return Work(0, 0)


def infer_reshape(call: OpCall) -> Sequence[TensorType]:
    data = call.input(0)
    shape = list(known_ints(call, 1, "shape"))
    if any(d < -1 for d in shape) or shape.count(-1) > 1:
        raise ValueError(f"Reshape to {tuple(shape)}: at most one -1 and nothing below it")
    if call.attribute("allowzero", 0) and 0 in shape and -1 in shape:
        raise ValueError(f"Reshape to {tuple(shape)}: allowzero with both 0 and -1 is ambiguous")
    if not call.attribute("allowzero", 0):
        shape = [_copied_dimension(data, i) if d == 0 else d for i, d in enumerate(shape)]
    if -1 in shape:
        rest = -prod(shape)
        if rest == 0 or data.size % rest:
            raise ValueError(f"Reshape of {data} to {tuple(shape)}: -1 cannot be inferred")
        shape[shape.index(-1)] = data.size // rest
    if prod(shape) != data.size:
        raise ValueError(f"Reshape of {data} to {tuple(shape)}: {prod(shape)} elements")
    return (data.with_shape(tuple(shape)),)


def _copied_dimension(data: TensorType, index: int) -> int:
    if index >= data.rank:
        raise ValueError(f"Reshape: 0 at position {index} but the operand is {data}")
    return data.shape[index]


def infer_flatten(call: OpCall) -> Sequence[TensorType]:
    data = call.input(0)
    axis = call.attribute("axis", 1)
    # Unlike elsewhere, axis == rank is allowed: all dimensions go to the first.
    if not -data.rank <= axis <= data.rank:
        raise ValueError(f"Flatten: axis {axis} is out of range for {data}")
    axis = axis + data.rank if axis < 0 else axis
    return (data.with_shape((prod(data.shape[:axis]), prod(data.shape[axis:]))),)


def infer_squeeze(call: OpCall) -> Sequence[TensorType]:
    data = call.input(0)
    if call.has_input(1):
        axes = normalize_axes(known_ints(call, 1, "axes"), data.rank)
    else:
        axes = tuple(i for i, d in enumerate(data.shape) if d == 1)
    if any(data.shape[a] != 1 for a in axes):
        raise ValueError(f"Squeeze of {data} along {axes}: not all of size 1")
    return (data.with_shape(tuple(d for i, d in enumerate(data.shape) if i not in axes)),)


def infer_unsqueeze(call: OpCall) -> Sequence[TensorType]:
    data = call.input(0)
    given = known_ints(call, 1, "axes")
    axes = normalize_axes(given, data.rank + len(given))
    rest = iter(data.shape)
    dims = (1 if i in axes else next(rest) for i in range(data.rank + len(axes)))
    return (data.with_shape(tuple(dims)),)


def infer_identity(call: OpCall) -> Sequence[TensorType]:
    return (call.input(0),)


OPS = (
    OpDef(
        "Reshape",
        infer_reshape,
        view_reference,
        gradient=view_gradient,
        work=no_work,
        examples=(
            Example((Sample((2, 3, 4)), int64s((4, 6)))),
            Example((Sample((2, 3, 4)), int64s((0, -1)))),
            Example((Sample((5,)), int64s((1, 5, 1)))),
            Example((Sample((1, 1)), int64s(()))),
            Example((Sample((2, 0, 3)), int64s((3, 0, 7))), {"allowzero": 1}, gradient=False),
            Example((Sample((4, 3), "int64", 0, 9), int64s((3, -1))), gradient=False),
        ),
        value_inputs=(1,),
        view=True,
    ),
    OpDef(
        "Flatten",
        infer_flatten,
        view_reference,
        gradient=view_gradient,
        work=no_work,
        examples=(
            Example((Sample((2, 3, 4)),)),
            Example((Sample((2, 3, 4)),), {"axis": -1}),
            Example((Sample((5,)),), {"axis": 0}),
            Example((Sample((2, 3)),), {"axis": 2}),
        ),
        view=True,
    ),
    OpDef(
        "Squeeze",
        infer_squeeze,
        view_reference,
        gradient=view_gradient,
        work=no_work,
        examples=(
            Example((Sample((1, 3, 1, 5)), int64s((0,)))),
            Example((Sample((1, 3, 1, 5)), int64s((-2, 0)))),
            Example((Sample((1, 3, 1)), None)),
        ),
        value_inputs=(1,),
        view=True,
    ),
    OpDef(
        "Unsqueeze",
        infer_unsqueeze,
        view_reference,
        gradient=view_gradient,
        work=no_work,
        examples=(
            Example((Sample((3, 5)), int64s((0,)))),
            Example((Sample((3, 5)), int64s((-1, 1)))),
            Example((Sample(()), int64s((0, 1)))),
        ),
        value_inputs=(1,),
        view=True,
    ),
    OpDef(
        "Identity",
        infer_identity,
        view_reference,
        gradient=view_gradient,
        work=no_work,
        examples=(
            Example((Sample((3, 5)),)),
            Example((Sample(()),)),
            Example((Sample((2, 1, 7)),)),
            Example((Sample((2, 3), "bool"),), gradient=False),
        ),
        view=True,
    ),
)
