"""Operators whose result is as large as data say: NonZero, Compress, Unique, NonMaxSuppression.

Code is made for fixed shapes, so what decides about them must be known before running: constants,
shapes, or the values of a model's inputs, to which it is bound then. Where it is not, a session
divides the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.axes import known, normalize_axis
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import Example, OpDef, Sample, Work

INT64 = np.dtype(np.int64)


def places(x: Array) -> Array:
    """Indices of what is not zero, one column each: int64 (rank, count)."""
    if x.ndim == 0:
        return np.zeros((0, int(bool(x))), np.int64)
    return np.stack(np.nonzero(x)).astype(np.int64)


def infer_non_zero(call: OpCall) -> Sequence[TensorType]:
    return (TensorType.of(places(known(call, 0, "operand"))),)


def non_zero(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return (places(np.asarray(operands[0])),)


def compress_axis(call: OpCall) -> int | None:
    """The axis, or ``None`` where all elements are taken as one line."""
    axis = call.attribute("axis")
    return None if axis is None else normalize_axis(int(axis), call.input(0).rank)


def chosen(call: OpCall) -> Array:
    """Which elements along the axis a condition takes; ``ValueError`` if it is too long."""
    condition, axis = known(call, 1, "condition"), compress_axis(call)
    length = call.input(0).size if axis is None else call.input(0).shape[axis]
    if condition.ndim != 1 or condition.size > length or condition.dtype != np.bool_:
        raise ValueError(f"Compress of {call.input(0)}: condition {call.input(1)}")
    return np.flatnonzero(condition)


def infer_compress(call: OpCall) -> Sequence[TensorType]:
    shape, axis, count = call.input(0).shape, compress_axis(call), len(chosen(call))
    if axis is None:
        return (call.input(0).with_shape((count,)),)
    return (call.input(0).with_shape((*shape[:axis], count, *shape[axis + 1 :])),)


def compress(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return (np.take(np.asarray(operands[0]), chosen(call), compress_axis(call)),)


def compress_body(call: OpCall) -> ir.Function:
    """What the condition takes is known: a Gather."""
    b, axis = FunctionBuilder(call), compress_axis(call)
    x = b.op("Reshape", [b.inputs[0], b.shape([-1])]) if axis is None else b.inputs[0]
    return b.function([b.op("Gather", [x, b.shape(chosen(call).tolist())], {"axis": axis or 0})])


def unique_parts(call: OpCall, x: Array) -> Sequence[Array]:
    """Values, where each is first, which of them each element is, how often each is there."""
    axis = call.attribute("axis")
    axis = None if axis is None else normalize_axis(int(axis), x.ndim)
    values, first, which, counts = np.unique(x, True, True, True, axis=axis)
    which = which.reshape(-1)
    if not call.attribute("sorted", 1):
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        values, first, counts = np.take(values, order, axis or 0), first[order], counts[order]
        which = rank[which]
    return (values, *(part.astype(np.int64) for part in (first, which, counts)))


def infer_unique(call: OpCall) -> Sequence[TensorType]:
    return tuple(TensorType.of(part) for part in unique_parts(call, known(call, 0, "operand")))


def unique(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return unique_parts(call, np.asarray(operands[0]))


def corners(boxes: Array, centred: bool) -> Array:
    """Boxes as (least y, least x, largest y, largest x), float64 (.., 4)."""
    wide = boxes.astype(np.float64)
    if centred:  # x, y of the middle, width, height
        middle, half = wide[..., [1, 0]], wide[..., [3, 2]] / 2
        return np.concatenate([middle - half, middle + half], -1)
    low, high = np.minimum(wide[..., :2], wide[..., 2:]), np.maximum(wide[..., :2], wide[..., 2:])
    return np.concatenate([low, high], -1)


def suppressed(boxes: Array, scores: Array, most: int, limit: float) -> list[int]:
    """Boxes by falling score (the first of equal ones first) that no chosen one overlaps.

    Overlap is intersection over union, 0 where a box has no area; ``boxes`` as by :func:`corners`.
    """
    order = np.argsort(-scores, kind="stable")
    top, left, bottom, right = np.ascontiguousarray(boxes[order].T)
    areas = (bottom - top) * (right - left)
    alive = np.ones(len(order), np.bool_)
    found: list[int] = []
    at = 0
    while at < len(order) and len(found) < most:
        found.append(int(order[at]))
        rest = slice(at + 1, None)
        tall = np.minimum(bottom[at], bottom[rest]) - np.maximum(top[at], top[rest])
        wide = np.minimum(right[at], right[rest]) - np.maximum(left[at], left[rest])
        common = np.maximum(tall, 0) * np.maximum(wide, 0)
        union = areas[at] + areas[rest] - common
        sound = (areas[at] > 0) & (areas[rest] > 0) & (union > 0)
        overlap = np.divide(common, union, out=np.zeros_like(common), where=sound)
        alive[rest] &= overlap <= limit
        step = int(np.argmax(alive[rest])) if alive[rest].any() else len(order)
        at += 1 + step
    return found


def selected(call: OpCall, operands: Sequence[Any]) -> Array:
    """NonMaxSuppression: image, class and box of each that is chosen, int64 (count, 3)."""
    boxes, scores = np.asarray(operands[0]), np.asarray(operands[1])
    _check_boxes(call.input(0), call.input(1))
    most, limit, least = (_number(operands, index) for index in (2, 3, 4))
    wide = corners(boxes, bool(call.attribute("center_point_box", 0)))
    rows: list[tuple[int, int, int]] = []
    for image, kind in np.ndindex(*scores.shape[:2]):
        line = scores[image, kind]
        kept = np.arange(len(line)) if least is None else np.flatnonzero(line > least)
        chosen_ = suppressed(wide[image][kept], line[kept], int(most or 0), float(limit or 0))
        rows += [(image, kind, int(kept[i])) for i in chosen_]
    return np.array(rows, np.int64).reshape(-1, 3)


def _check_boxes(boxes: TensorType, scores: TensorType) -> None:
    fits = boxes.rank == 3 and scores.rank == 3 and boxes.shape[2] == 4
    if not fits or (boxes.shape[0], boxes.shape[1]) != (scores.shape[0], scores.shape[2]):
        raise ValueError(f"NonMaxSuppression of {boxes} by {scores}")


def _number(operands: Sequence[Any], index: int) -> float | None:
    """An operand of one element, or ``None`` where it is absent or empty."""
    value = operands[index] if index < len(operands) else None
    return None if value is None or not np.size(value) else float(np.asarray(value).reshape(-1)[0])


def infer_suppression(call: OpCall) -> Sequence[TensorType]:
    operands = [
        known(call, index, "operands") if call.has_input(index) else None
        for index in range(len(call.inputs))
    ]
    return (TensorType.of(selected(call, operands)),)


def suppression(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return (selected(call, operands),)


def search_work(call: OpCall) -> Work:
    """A comparison for each element; what is found is counted as known."""
    sizes = [kind for kind in (*call.inputs, *call.outputs) if kind is not None]
    return Work(call.input(0).size, sum(kind.nbytes for kind in sizes))


_X = np.array([[3, 0, 1], [0, 0, 3]], np.float32)
_BOXES = np.array(
    [[[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, -0.1, 1, 0.9], [0, 10, 1, 11], [1, 11.1, 0, 10.1]]],
    np.float32,
)
_SCORES = np.array([[[0.9, 0.75, 0.6, 0.95, 0.5], [0.1, 0.2, 0.9, 0.3, 0.8]]], np.float32)
_LIMITS = (np.array([3]), np.array([0.5], np.float32), np.array([0.15], np.float32))
POSITIONS = "the result is positions of data"

OPS = (
    OpDef(
        "NonZero",
        infer_non_zero,
        non_zero,
        not_differentiable=POSITIONS,
        work=search_work,
        value_inputs=(0,),
        examples=(Example((_X,), gradient=False), Example((_X > 0,), gradient=False)),
    ),
    OpDef(
        "Compress",
        infer_compress,
        compress,
        not_differentiable="training puts its body in its place, which has a gradient",
        value_inputs=(1,),
        body=compress_body,
        examples=(
            Example((Sample((3, 4)), np.array([True, False, True])), {"axis": 0}),
            Example((Sample((2, 3)), np.array([False, True, True, False, True]))),
            Example((Sample((2, 5, 3)), np.array([False, True])), {"axis": -2}),
        ),
    ),
    OpDef(
        "Unique",
        infer_unique,
        unique,
        not_differentiable=POSITIONS,
        work=search_work,
        value_inputs=(0,),
        examples=(
            Example((_X,), outputs=4, gradient=False),
            Example((_X,), {"sorted": 0}, outputs=4, gradient=False),
            Example((_X[[1, 0, 1]],), {"axis": 0}, outputs=2, gradient=False),
        ),
    ),
    OpDef(
        "NonMaxSuppression",
        infer_suppression,
        suppression,
        not_differentiable=POSITIONS,
        work=search_work,
        value_inputs=(0, 1, 2, 3, 4),
        examples=(
            Example((_BOXES, _SCORES, *_LIMITS), gradient=False),
            Example((_BOXES, _SCORES, *_LIMITS[:2]), {"center_point_box": 1}, gradient=False),
        ),
    ),
)
