"""Operators that look elements up by index: Gather, GatherElements, GatherND.

Indices count from the back where negative. An index out of range is an error in the references;
device kernels cannot raise: they read zeros there.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.axes import int64s, normalize_axis
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import COEXEC, Example, GradientScope, OpDef, Sample


def check_indices(indices: TensorType, call: OpCall) -> None:
    """Raises ``ValueError`` unless ``indices`` are of an integer type."""
    if indices.dtype.kind not in "iu":
        raise ValueError(f"{call.op_type}: indices must be integers, not {indices}")


def gather_axis(call: OpCall) -> int:
    """``axis`` (default 0) counted from the front of input 0."""
    return normalize_axis(int(call.attribute("axis", 0)), call.input(0).rank)


def infer_gather(call: OpCall) -> Sequence[TensorType]:
    data, indices, axis = call.input(0), call.input(1), gather_axis(call)
    check_indices(indices, call)
    return (data.with_shape((*data.shape[:axis], *indices.shape, *data.shape[axis + 1 :])),)


def gather(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return (np.take(operands[0], operands[1], axis=gather_axis(call)),)


def gather_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    attributes = {"axis": gather_axis(g.call), "shape": g.call.input(0).shape}
    return (g.op("GatherGrad", [g.value(1), g.grad()], attributes, domain=COEXEC), None)


def gather_grad_axis(call: OpCall) -> int:
    """``axis`` of a coexec::GatherGrad counted from the front of ``shape``."""
    return normalize_axis(int(call.attribute("axis", 0)), len(call.attributes["shape"]))


def infer_gather_grad(call: OpCall) -> Sequence[TensorType]:
    indices, grad = call.input(0), call.input(1)
    shape, axis = tuple(call.attributes["shape"]), gather_grad_axis(call)
    check_indices(indices, call)
    if grad.shape != (*shape[:axis], *indices.shape, *shape[axis + 1 :]):
        raise ValueError(f"GatherGrad: {grad} is not {shape} gathered by {indices} on {axis}")
    return (grad.with_shape(shape),)


def gather_grad(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Add each slice of the gradient to the slice that it was read from, in index order."""
    indices, grad = operands
    shape, axis = call.output(0).shape, gather_grad_axis(call)
    wide = np.float32 if grad.dtype.itemsize == 2 else grad.dtype
    lanes = np.zeros((prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :])), wide)
    parts = grad.reshape(lanes.shape[0], indices.size, lanes.shape[2]).astype(wide)
    np.add.at(lanes.swapaxes(0, 1), indices.reshape(-1), parts.swapaxes(0, 1))
    return (lanes.reshape(shape).astype(grad.dtype),)


def gather_grad_body(call: OpCall) -> ir.Function:
    """ScatterND adds rows of axis 0: bring the gathered axis there and back."""
    build = FunctionBuilder(call)
    indices, grad = build.inputs
    shape, axis = call.output(0).shape, gather_grad_axis(call)
    depth, rank = call.input(0).rank, call.input(1).rank
    front = (axis, *(i for i in range(len(shape)) if i != axis))
    # The gradient has the indices' dimensions where the data has its axis.
    picked = range(axis, axis + depth)
    to_front = (*picked, *(i for i in range(rank) if i not in picked))
    sizes = build.shape([shape[i] for i in front])
    zero = ir.tensor(np.zeros(1, call.output(0).dtype))
    zeros = build.op("ConstantOfShape", [sizes], {"value": zero})
    # ScatterND takes int64 indices only.
    wide = build.op("Cast", [indices], {"to": ir.DataType.INT64.value})
    where = build.op("Unsqueeze", [wide, build.shape([-1])])
    rows = build.op("Transpose", [grad], {"perm": to_front})
    summed = build.op("ScatterND", [zeros, where, rows], {"reduction": "add"})
    back = tuple(front.index(i) for i in range(len(shape)))
    return build.function([build.op("Transpose", [summed], {"perm": back})])


def gather_grad_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    """GatherGrad is linear in the gradient: its transpose is the Gather."""
    axis = {"axis": gather_grad_axis(g.call)}
    return (None, g.op("Gather", [g.grad(), g.value(0)], axis))


def infer_gather_elements(call: OpCall) -> Sequence[TensorType]:
    data, indices, axis = call.input(0), call.input(1), gather_axis(call)
    check_indices(indices, call)
    check_within(call, indices, axis)
    return (data.with_shape(indices.shape),)


def check_within(call: OpCall, indices: TensorType, axis: int) -> None:
    """Raises ``ValueError`` unless ``indices`` fit into input 0 outside of ``axis``."""
    data = call.input(0)
    fits = indices.rank == data.rank and all(
        n <= d for i, (n, d) in enumerate(zip(indices.shape, data.shape, strict=True)) if i != axis
    )
    if not fits:
        raise ValueError(f"{call.op_type} along {axis}: {indices} does not fit into {data}")


def lane_grid(indices: Array, axis: int) -> tuple[Array, ...]:
    """Index arrays that address, for each element of ``indices``, its target in the data."""
    grid = list(np.meshgrid(*map(np.arange, indices.shape), indexing="ij", sparse=True))
    grid[axis] = indices
    return tuple(grid)


def gather_elements(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return (operands[0][lane_grid(operands[1], gather_axis(call))],)


def gather_elements_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    kind = g.call.input(0)
    zeros = g.constant(np.zeros(kind.shape, kind.dtype), kind.dtype)
    attributes = {"axis": gather_axis(g.call), "reduction": "add"}
    return (g.op("ScatterElements", [zeros, g.value(1), g.grad()], attributes), None)


def infer_gather_nd(call: OpCall) -> Sequence[TensorType]:
    data, indices = call.input(0), call.input(1)
    batch = int(call.attribute("batch_dims", 0))
    check_indices(indices, call)
    if indices.rank == 0 or not 0 <= batch < min(data.rank, indices.rank):
        raise ValueError(f"GatherND of {data} by {indices} with batch_dims {batch}")
    depth = indices.shape[-1]
    if data.shape[:batch] != indices.shape[:batch] or batch + depth > data.rank:
        raise ValueError(f"GatherND of {data} by {indices} with batch_dims {batch}")
    return (data.with_shape((*indices.shape[:-1], *data.shape[batch + depth :])),)


def gather_nd(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    data, indices = operands
    batch, depth = int(call.attribute("batch_dims", 0)), indices.shape[-1]
    lanes = data.reshape(prod(data.shape[:batch]), *data.shape[batch:])
    rows = indices.reshape(lanes.shape[0], prod(indices.shape[batch:-1]), depth)
    lane = np.arange(lanes.shape[0])[:, None]
    picked = lanes[(lane, *(rows[..., k] for k in range(depth)))]
    return (picked.reshape(call.output(0).shape),)


def gather_nd_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    """ScatterND by the same indices, the coordinates of the batch put in front of them."""
    data, indices = g.call.input(0), g.value(1)
    batch = int(g.call.attribute("batch_dims", 0))
    if batch:
        kind = g.call.input(1)
        grid = np.indices((*kind.shape[:-1], 1), dtype=kind.dtype)[:batch]
        lead = np.moveaxis(grid, 0, -1)[..., 0, :]
        operands = [g.constant(np.ascontiguousarray(lead), kind.dtype), indices]
        indices = g.op("Concat", operands, {"axis": -1})
    zeros = g.constant(np.zeros(data.shape, data.dtype), data.dtype)
    return (g.op("ScatterND", [zeros, indices, g.grad()], {"reduction": "add"}), None)


_SPREAD = np.array([[3, 0, -1], [2, 2, 0]], dtype=np.int64)
_ROWS = Sample((2, 3), "int32", -5, 5)
_FEW = Sample((40,), "int64", 0, 3)

OPS = (
    OpDef(
        "Gather",
        infer_gather,
        gather,
        gradient=gather_gradient,
        examples=(
            Example((Sample((5, 4)), Sample((2, 3), "int64", -5, 5))),
            Example((Sample((3, 4, 5)), Sample((6,), "int32", 0, 4)), {"axis": 1}),
            Example((Sample((3, 7)), Sample((), "int64", -7, 7)), {"axis": -1}),
            Example((Sample((4, 32)), Sample((9,), "int64", 0, 4))),
            Example((Sample((2, 6, 2, 3)), int64s((5, 0, 5))), {"axis": 1}),
            Example((Sample((4, 3), "int64", 0, 9), Sample((0,), "int64")), gradient=False),
            Example((Sample((5, 3), "float16"), _ROWS), gradient=False),
        ),
    ),
    OpDef(
        "GatherGrad",
        infer_gather_grad,
        gather_grad,
        domain=COEXEC,
        gradient=gather_grad_gradient,
        body=gather_grad_body,
        examples=(
            Example((_ROWS, Sample((2, 3, 4))), {"axis": 0, "shape": (5, 4)}),
            Example(
                (Sample((6,), "int64", 0, 4), Sample((3, 6, 5))), {"axis": 1, "shape": (3, 4, 5)}
            ),
            Example((Sample((), "int64", -7, 7), Sample((3,))), {"axis": 1, "shape": (3, 7)}),
            Example((_FEW, Sample((40, 33))), {"axis": 0, "shape": (9, 33)}),
            Example((Sample((0,), "int64"), Sample((0, 4))), {"axis": 0, "shape": (5, 4)}),
        ),
    ),
    OpDef(
        "GatherElements",
        infer_gather_elements,
        gather_elements,
        gradient=gather_elements_gradient,
        examples=(
            Example((Sample((4, 3)), _SPREAD)),
            Example((Sample((4, 3)), Sample((4, 5), "int64", -3, 3)), {"axis": 1}),
            Example((Sample((3, 4, 5)), Sample((2, 6, 4), "int32", 0, 4)), {"axis": -2}),
            Example((Sample((6,), "bool"), Sample((4,), "int64", 0, 6)), gradient=False),
        ),
    ),
    OpDef(
        "GatherND",
        infer_gather_nd,
        gather_nd,
        gradient=gather_nd_gradient,
        examples=(
            Example((Sample((4, 5)), Sample((3, 2), "int64", -4, 4))),
            Example((Sample((4, 5, 2)), Sample((3, 1), "int64", 0, 4))),
            Example((Sample((2, 4, 3, 5)), Sample((2, 6, 2), "int64", 0, 3)), {"batch_dims": 1}),
            Example((Sample((2, 3, 4)), Sample((2, 3, 1), "int64", 0, 4)), {"batch_dims": 2}),
        ),
    ),
)
