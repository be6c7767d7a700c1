"""Operators that place elements by index: ScatterElements, ScatterND, TensorScatter.

Where an index occurs twice, updates apply in index order: ``none`` keeps the last one, sums are
taken in that order, so that results are reproducible. An index out of range is an error in the
references; device kernels cannot raise: they leave such an update out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.axes import normalize_axis
from coexec.ops.index import check_indices, check_within, gather_axis, lane_grid
from coexec.ops.opdef import Example, GradientScope, OpDef, Sample

_APPLY: Mapping[str, Callable[[Array, Any, Array], None]] = {
    "add": np.add.at,
    "mul": np.multiply.at,
    "min": np.minimum.at,
    "max": np.maximum.at,
}


def reduction(call: OpCall) -> str:
    """``none``, ``add``, ``mul``, ``min`` or ``max``."""
    name = str(call.attribute("reduction", "none"))
    if name != "none" and name not in _APPLY:
        raise ValueError(f"{call.op_type}: unknown reduction {name!r}")
    return name


def _scattered(call: OpCall, data: Array, where: tuple[Array, ...], updates: Array) -> Array:
    """``data`` with ``updates`` applied in order; half types accumulate in float32."""
    half = data.dtype.itemsize == 2 and data.dtype.kind not in "iu"
    result = data.astype(np.float32 if half else data.dtype)
    if reduction(call) == "none":
        result[where] = updates
    else:
        _APPLY[reduction(call)](result, where, updates.astype(result.dtype))
    return result.astype(data.dtype)


def infer_scatter_elements(call: OpCall) -> Sequence[TensorType]:
    data, indices, updates = (call.input(i) for i in range(3))
    check_indices(indices, call)
    check_within(call, indices, gather_axis(call))
    reduction(call)
    if updates != TensorType(indices.shape, data.dtype):
        raise ValueError(f"ScatterElements of {data}: updates {updates} at {indices}")
    return (data,)


def scatter_elements(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    data, indices, updates = operands
    return (_scattered(call, data, lane_grid(indices, gather_axis(call)), updates),)


def infer_scatter_nd(call: OpCall) -> Sequence[TensorType]:
    data, indices, updates = (call.input(i) for i in range(3))
    check_indices(indices, call)
    reduction(call)
    depth = indices.shape[-1] if indices.rank else data.rank + 1
    if depth > data.rank:
        raise ValueError(f"ScatterND of {data} at {indices}")
    if updates != TensorType((*indices.shape[:-1], *data.shape[depth:]), data.dtype):
        raise ValueError(f"ScatterND of {data}: updates {updates} at {indices}")
    return (data,)


def scatter_nd(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    data, indices, updates = operands
    depth = indices.shape[-1]
    if depth == 0:
        # No coordinates: every update replaces (or adds to) the whole tensor.
        lanes = np.zeros((1, *data.shape), data.dtype)
        lanes[0] = data
        where = (np.zeros(prod(indices.shape[:-1]), np.int64),)
        parts = updates.reshape(where[0].size, *data.shape)
        return (_scattered(call, lanes, where, parts)[0],)
    return (_scattered(call, data, tuple(np.moveaxis(indices, -1, 0)), updates),)


class _Places:
    """The scatter of a node and the gather that reads the same places."""

    def __init__(self, g: GradientScope) -> None:
        self.g = g
        self.indices = g.value(1)
        self.elements = g.call.op_type == "ScatterElements"
        self.axis = {"axis": gather_axis(g.call)} if self.elements else {}

    def gather(self, data: ir.Value) -> ir.Value:
        name = "GatherElements" if self.elements else "GatherND"
        return self.g.op(name, [data, self.indices], self.axis)

    def scatter(self, data: ir.Value, updates: ir.Value, how: str) -> ir.Value:
        attributes = {**self.axis, "reduction": how}
        return self.g.op(self.g.call.op_type, [data, self.indices, updates], attributes)

    def full(self, value: float, like: int) -> ir.Value:
        kind = self.g.call.input(like)
        return self.g.constant(np.full(kind.shape, value, kind.dtype), kind.dtype)


def scatter_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    rules = {"none": _none, "add": _add, "mul": _mul, "min": _extreme, "max": _extreme}
    data, updates = rules[reduction(g.call)](g, _Places(g))
    return (data, None, updates)


Pair = tuple[ir.Value, ir.Value]


def _none(g: GradientScope, places: _Places) -> Pair:
    """Overwritten data gets nothing; ONNX wants unique indices here."""
    return places.scatter(g.grad(), places.full(0, 2), "none"), places.gather(g.grad())


def _add(g: GradientScope, places: _Places) -> Pair:
    return g.grad(), places.gather(g.grad())


def _extreme(g: GradientScope, places: _Places) -> Pair:
    """The gradient goes to whoever has the extreme value, in equal parts where several have."""
    kind = g.call.input(0).dtype

    def winners(operand: ir.Value, result: ir.Value) -> ir.Value:
        return g.op("Where", [g.op("Equal", [operand, result]), one, zero])

    one, zero = g.constant(1, kind), g.constant(0, kind)
    of_data = winners(g.value(0), g.outputs[0])
    of_updates = winners(g.value(2), places.gather(g.outputs[0]))
    # Where nobody wins (NaN) the count is 0 and so are both masks.
    count = g.op("Max", [places.scatter(of_data, of_updates, "add"), one])
    share = g.op("Div", [g.grad(), count])
    return g.op("Mul", [share, of_data]), g.op("Mul", [places.gather(share), of_updates])


def _mul(g: GradientScope, places: _Places) -> Pair:
    """dY times the product of all *other* factors, by division unless a factor is zero.

    With ``zeros`` factors of a product being zero and ``rest`` the product of those that are not:
    a factor's others multiply to ``rest / factor`` (no zero), to ``rest`` (it is the only zero)
    and to zero otherwise.
    """
    kind = g.call.input(0).dtype
    one, zero = g.constant(1, kind), g.constant(0, kind)
    factors = (g.value(0), g.value(2))
    is_zero = [g.op("Equal", [factor, zero]) for factor in factors]
    safe = [g.op("Where", [z, one, f]) for z, f in zip(is_zero, factors, strict=True)]
    flags = [g.op("Where", [z, one, zero]) for z in is_zero]
    zeros = places.scatter(flags[0], flags[1], "add")
    rest = g.op("Mul", [g.grad(), places.scatter(safe[0], safe[1], "mul")])
    seen = ((zeros, rest), (places.gather(zeros), places.gather(rest)))
    results = []
    for (count, product), flag, factor in zip(seen, flags, safe, strict=True):
        # Zeros among the others: all zeros but this factor itself.
        others = g.op("Equal", [count, flag])
        results.append(g.op("Where", [others, g.op("Div", [product, factor]), zero]))
    return results[0], results[1]


def tensor_scatter_axis(call: OpCall) -> int:
    """The sequence axis of a TensorScatter, which is never the batch axis 0."""
    axis = normalize_axis(int(call.attribute("axis", -2)), call.input(0).rank)
    if axis == 0:
        raise ValueError("TensorScatter: axis 0 is the batch")
    return axis


def infer_tensor_scatter(call: OpCall) -> Sequence[TensorType]:
    cache, update, axis = call.input(0), call.input(1), tensor_scatter_axis(call)
    expected = (*cache.shape[:axis], update.shape[axis], *cache.shape[axis + 1 :])
    if update != cache.with_shape(expected) or update.shape[axis] > cache.shape[axis]:
        raise ValueError(f"TensorScatter of {update} into {cache} along {axis}")
    if call.has_input(2) and call.input(2).shape != cache.shape[:1]:
        raise ValueError(f"TensorScatter into {cache}: write_indices are {call.input(2)}")
    if call.attribute("mode", "linear") not in ("linear", "circular"):
        raise ValueError(f"TensorScatter: unknown mode {call.attribute('mode')!r}")
    return (cache,)


def tensor_scatter(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    result, update = np.array(operands[0]), operands[1]
    axis = tensor_scatter_axis(call)
    size, count = result.shape[axis], update.shape[axis]
    starts = operands[2] if call.has_input(2) else np.zeros(result.shape[0], np.int64)
    lanes, parts = np.moveaxis(result, axis, 1), np.moveaxis(update, axis, 1)
    for lane, part, start in zip(lanes, parts, starts, strict=True):
        where = int(start) + np.arange(count)
        if call.attribute("mode", "linear") == "circular":
            where %= size
        lane[where] = part
    return (result,)


_REDUCTIONS = ("add", "mul", "min", "max")
_TWICE = Sample((3, 5), "int64", -4, 4)

OPS = (
    OpDef(
        "ScatterElements",
        infer_scatter_elements,
        scatter_elements,
        gradient=scatter_gradient,
        in_place=((0, 0),),
        examples=(
            Example((Sample((3, 4)), np.array([[1, -1, 0, 2]]), Sample((1, 4)))),
            Example((Sample((2, 5)), np.array([[4, 0], [-2, 1]]), Sample((2, 2))), {"axis": 1}),
            *(
                Example((Sample((4, 5)), _TWICE, Sample((3, 5))), {"reduction": how})
                for how in _REDUCTIONS
            ),
            Example(
                (Sample((3, 6, 4)), Sample((2, 9, 3), "int32", -6, 6), Sample((2, 9, 3))),
                {"axis": -2, "reduction": "add"},
            ),
            Example(
                (Sample((5,), "int64", 0, 9), np.array([1, 1, 3]), Sample((3,), "int64", 0, 9)),
                gradient=False,
            ),
        ),
    ),
    OpDef(
        "ScatterND",
        infer_scatter_nd,
        scatter_nd,
        gradient=scatter_gradient,
        in_place=((0, 0),),
        examples=(
            Example((Sample((5, 3)), np.array([[3], [-5]]), Sample((2, 3)))),
            Example((Sample((4, 5)), np.array([[0, 1], [3, -1], [2, 2]]), Sample((3,)))),
            *(
                Example(
                    (Sample((4, 3)), Sample((2, 3, 1), "int64", -4, 4), Sample((2, 3, 3))),
                    {"reduction": how},
                )
                for how in _REDUCTIONS
            ),
            Example(
                (Sample((3, 4, 40)), Sample((9, 2), "int64", 0, 3), Sample((9, 40))),
                {"reduction": "add"},
            ),
            Example(
                (Sample((4, 2), "bool"), np.array([[0], [0], [2]]), Sample((3, 2), "bool")),
                gradient=False,
            ),
        ),
    ),
    OpDef(
        "TensorScatter",
        infer_tensor_scatter,
        tensor_scatter,
        not_differentiable="it updates the key-value cache of inference",
        in_place=((0, 0),),
        examples=(
            Example((Sample((2, 3, 6, 4)), Sample((2, 3, 2, 4)), np.array([1, 4]))),
            Example(
                (Sample((2, 5, 3)), Sample((2, 3, 3)), np.array([4, 0])),
                {"mode": "circular", "axis": 1},
            ),
            Example((Sample((2, 5, 3)), Sample((2, 2, 3)))),
        ),
    ),
)
