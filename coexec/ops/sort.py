"""Operators that order elements: TopK."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.axes import known_int, normalize_axis
from coexec.ops.opdef import Example, GradientScope, OpDef, Sample


def top_k_axis(call: OpCall) -> int:
    return normalize_axis(int(call.attribute("axis", -1)), call.input(0).rank)


def infer_top_k(call: OpCall) -> Sequence[TensorType]:
    data, axis, k = call.input(0), top_k_axis(call), known_int(call, 1, "k")
    if not 0 <= k <= data.shape[axis]:
        raise ValueError(f"TopK: {k} of {data.shape[axis]} elements along axis {axis} of {data}")
    shape = (*data.shape[:axis], k, *data.shape[axis + 1 :])
    return data.with_shape(shape), TensorType(shape, np.dtype(np.int64))


def top_k(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Ties in order of index, NaN above all numbers; ``sorted=0`` gives the same order."""
    data, k, axis = operands[0], known_int(call, 1, "k"), top_k_axis(call)
    if call.attribute("largest", 1):
        # A stable ascending order of the reversed lane, read backwards: ties stay in index order,
        # and no negation is needed, which unsigned types do not have.
        order = np.flip(np.argsort(np.flip(data, axis), axis=axis, kind="stable"), axis)
        order = data.shape[axis] - 1 - order
    else:
        order = np.argsort(data, axis=axis, kind="stable")
    indices = np.take(order, np.arange(k), axis=axis).astype(np.int64)
    return np.take_along_axis(data, indices, axis), indices


def top_k_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    """Each chosen element gets its own gradient; no index occurs twice."""
    kind = g.call.input(0)
    zeros = g.constant(np.zeros(kind.shape, kind.dtype), kind.dtype)
    operands = [zeros, g.outputs[1], g.grad()]
    return (g.op("ScatterElements", operands, {"axis": top_k_axis(g.call)}), None)


_TIES = np.array([[3, 1, 3, 2, 3, 1, 2, 2, 1]], np.float32)

OPS = (
    OpDef(
        "TopK",
        infer_top_k,
        top_k,
        gradient=top_k_gradient,
        value_inputs=(1,),
        examples=(
            Example((Sample((3, 7)), np.array([3])), outputs=2),
            Example((Sample((2, 6, 3)), np.array([2])), {"axis": 1, "largest": 0}, outputs=2),
            Example((Sample((5,)), np.array([5])), {"sorted": 0}, outputs=2),
            Example((Sample((2, 100)), np.array([40])), {"largest": 0}, outputs=2, gradient=False),
            Example((_TIES, np.array([7])), outputs=2, gradient=False),
            Example((_TIES, np.array([5])), {"largest": 0}, outputs=2, gradient=False),
            Example((Sample((3, 4)), np.array([0])), outputs=2, gradient=False),
            Example((Sample((2, 4500)), np.array([2])), outputs=2, gradient=False),
            Example((Sample((3000,)), np.array([1000])), outputs=2, gradient=False),
            Example((Sample((3, 9), "uint8", 0, 5), np.array([4])), outputs=2, gradient=False),
            Example((Sample((3, 9), "int64", -9, 9), np.array([9])), outputs=2, gradient=False),
        ),
    ),
)
