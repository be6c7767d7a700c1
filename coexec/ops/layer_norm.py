"""Normalisation over the last axes: LayerNormalization and RMSNormalization, with gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import COEXEC, Example, GradientScope, OpDef, Sample, streaming_work
from coexec.ops.precision import widened

EPSILON = 1e-5
NO_SECOND_ORDER = "second derivatives of normalisation are not provided"


def first_axis(call: OpCall) -> int:
    """The first normalised axis, counted from the front."""
    rank = call.input(0).rank
    axis = int(call.attribute("axis", -1))
    if not -rank <= axis < rank:
        raise ValueError(f"{call.identifier}: axis {axis} is outside of {call.input(0)}")
    return axis % rank


def rows_and_length(call: OpCall) -> tuple[int, int]:
    """How many vectors are normalised, and how long each is."""
    shape, axis = call.input(0).shape, first_axis(call)
    return prod(shape[:axis]), prod(shape[axis:])


def inner_affine(call: OpCall, position: int) -> bool:
    """Whether operand ``position`` (scale, bias) has exactly the shape of the normalised axes."""
    return call.input(position).shape == call.input(0).shape[first_axis(call) :]


def _check_broadcast(call: OpCall, positions: Sequence[int]) -> None:
    shape = call.input(0).shape
    for i in positions:
        if call.has_input(i) and np.broadcast_shapes(call.input(i).shape, shape) != shape:
            raise ValueError(f"{call.identifier}: {call.input(i)} does not broadcast to {shape}")


def _stash(call: OpCall) -> np.dtype[Any]:
    """Type of the statistics: attribute ``stash_type`` (1 is float32)."""
    return ir.DataType(int(call.attribute("stash_type", 1))).numpy()


def infer_layer_norm(call: OpCall) -> Sequence[TensorType]:
    x, axis = call.input(0), first_axis(call)
    _check_broadcast(call, (1, 2))
    statistics = TensorType((*x.shape[:axis], *(1,) * (x.rank - axis)), _stash(call))
    return x, statistics, statistics


def _normal(call: OpCall, x: Array, centre: bool) -> tuple[Array, Array, Array]:
    """Normalised x, mean and 1 / standard deviation (of x itself for RMS)."""
    axes = tuple(range(first_axis(call), x.ndim))
    mean = x.mean(axis=axes, keepdims=True) if centre else np.zeros((), x.dtype)
    centred = x - mean
    variance = (centred * centred).mean(axis=axes, keepdims=True)
    inverse = 1 / np.sqrt(variance + call.attribute("epsilon", EPSILON))
    return centred * inverse, mean, inverse


@widened
def layer_norm(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    x = operands[0]
    normal, mean, inverse = _normal(call, x, centre=True)
    y = normal * operands[1]
    if call.has_input(2):
        y = y + operands[2]
    stash = _stash(call)
    return y.astype(x.dtype), mean.astype(stash), inverse.astype(stash)


def _grad_attributes(call: OpCall) -> dict[str, Any]:
    epsilon = float(call.attribute("epsilon", EPSILON))
    return {"axis": int(call.attribute("axis", -1)), "epsilon": epsilon}


def layer_norm_gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    dx, dscale, dbias = _emit_gradients(s, "LayerNormalizationGrad", 3)
    dx = _through_statistics(s, dx)
    return (dx, dscale, dbias)[: len(s.inputs)]


def rms_norm_gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    return _emit_gradients(s, "RMSNormalizationGrad", 2)


def _emit_gradients(s: GradientScope, name: str, outputs: int) -> tuple[ir.Value, ...]:
    """The gradient operator, whose dScale has the shape of the normalised axes.

    A scale that also varies over outer axes is multiplied in beforehand.
    """
    x, scale, dy = s.value(0), s.value(1), s.grad()
    attributes = _grad_attributes(s.call)
    axis = first_axis(s.call)
    inner = s.call.input(0).shape[axis:]
    dtype = s.type_of(x).dtype
    if _fits_inner(s.call.input(1).shape, inner):
        if s.call.input(1).shape != inner:
            scale = s.op("Expand", [scale, s.constant(np.array(inner, np.int64), "int64")])
        return s.ops(name, [x, scale, dy], attributes, outputs=outputs, domain=COEXEC)
    ones = s.constant(np.ones(inner), dtype)
    scaled = s.op("Mul", [dy, scale])
    dx, *_ = s.ops(name, [x, ones, scaled], attributes, outputs=outputs, domain=COEXEC)
    normal = s.op(name.removesuffix("Grad"), [x, ones], attributes)
    return (dx, s.op("Mul", [dy, normal]), dy)[:outputs]


def _fits_inner(shape: tuple[int, ...], inner: tuple[int, ...]) -> bool:
    return len(shape) <= len(inner) and np.broadcast_shapes(shape, inner) == inner


def _through_statistics(s: GradientScope, dx: ir.Value) -> ir.Value:
    """Add what flows back through the outputs Mean and InvStdDev (rarely used as values)."""
    dtype = s.call.input(0).dtype
    _, length = rows_and_length(s.call)

    def cast(value: ir.Value) -> ir.Value:
        if s.type_of(value).dtype == dtype:
            return value
        return s.op("Cast", [value], {"to": int(ir.DataType.from_numpy(dtype))})

    share = s.constant(1.0 / length, dtype)
    if len(s.grads) > 1 and s.grads[1] is not None:
        dx = s.op("Add", [dx, s.op("Mul", [cast(s.grads[1]), share])])
    if len(s.grads) > 2 and s.grads[2] is not None:
        inverse = cast(s.outputs[2])
        cube = s.op("Mul", [inverse, s.op("Mul", [inverse, inverse])])
        factor = s.op("Mul", [s.op("Mul", [cast(s.grads[2]), cube]), share])
        axes = np.arange(first_axis(s.call), s.call.input(0).rank)
        mean = s.op("ReduceMean", [s.value(0), s.constant(axes, "int64")], {"keepdims": 1})
        centred = s.op("Sub", [s.value(0), mean])
        dx = s.op("Sub", [dx, s.op("Mul", [factor, centred])])
    return dx


def infer_norm_grad(call: OpCall) -> Sequence[TensorType]:
    x, scale, dy = call.input(0), call.input(1), call.input(2)
    if scale.shape != x.shape[first_axis(call) :] or dy.shape != x.shape:
        raise ValueError(f"{call.identifier}: {x}, {scale} and {dy} do not fit")
    return (x, scale, scale) if call.op_type == "LayerNormalizationGrad" else (x, scale)


def _gradients(call: OpCall, operands: Sequence[Any], centre: bool) -> tuple[Array, Array, Array]:
    x, scale, dy = operands
    axis = first_axis(call)
    inner, outer = tuple(range(axis, x.ndim)), tuple(range(axis))
    normal, _, inverse = _normal(call, x, centre)
    scaled = dy * scale
    mixed = scaled - normal * (scaled * normal).mean(axis=inner, keepdims=True)
    if centre:
        mixed = mixed - scaled.mean(axis=inner, keepdims=True)
    return mixed * inverse, (dy * normal).sum(axis=outer), dy.sum(axis=outer)


@widened
def layer_norm_grad(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return _gradients(call, operands, centre=True)


@widened
def rms_norm_grad(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return _gradients(call, operands, centre=False)[:2]


def _normal_nodes(b: FunctionBuilder, axes: ir.Value, centre: bool) -> tuple[ir.Value, ir.Value]:
    """Nodes for normalised x and 1 / standard deviation."""
    x = b.inputs[0]
    if centre:
        x = b.op("Sub", [x, b.op("ReduceMean", [x, axes], {"keepdims": 1})])
    variance = b.op("ReduceMean", [b.op("Mul", [x, x]), axes], {"keepdims": 1})
    epsilon = b.constant(b.call.attribute("epsilon", EPSILON), b.call.input(0).dtype)
    inverse = b.op("Reciprocal", [b.op("Sqrt", [b.op("Add", [variance, epsilon])])])
    return b.op("Mul", [x, inverse]), inverse


def _grad_body(centre: bool) -> Callable[[OpCall], ir.Function | None]:
    def body(call: OpCall) -> ir.Function | None:
        """Reductions and elementwise operators."""
        b = FunctionBuilder(call)
        axis, rank = first_axis(call), call.input(0).rank
        inner, outer = b.shape(range(axis, rank)), b.shape(range(axis))
        _, scale, dy = b.inputs
        normal, inverse = _normal_nodes(b, inner, centre)
        scaled = b.op("Mul", [dy, scale])
        product = b.op("ReduceMean", [b.op("Mul", [scaled, normal]), inner], {"keepdims": 1})
        mixed = b.op("Sub", [scaled, b.op("Mul", [normal, product])])
        if centre:
            mean = b.op("ReduceMean", [scaled, inner], {"keepdims": 1})
            mixed = b.op("Sub", [mixed, mean])
        reduction = {"keepdims": 0, "noop_with_empty_axes": 1}
        sums = (b.op("Mul", [dy, normal]), dy)[: call.output_count - 1]
        totals = [b.op("ReduceSum", [value, outer], reduction) for value in sums]
        return b.function([b.op("Mul", [mixed, inverse]), *totals])

    return body


def infer_rms_norm(call: OpCall) -> Sequence[TensorType]:
    _check_broadcast(call, (1,))
    first_axis(call)
    return (call.input(0),)


@widened
def rms_norm(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    normal, _, _ = _normal(call, operands[0], centre=False)
    return ((normal * operands[1]).astype(operands[0].dtype),)


def rms_norm_body(call: OpCall) -> ir.Function | None:
    """For engines of opset 22 and older; 16-bit floats need wider arithmetic than this."""
    if call.input(0).dtype.itemsize < 4:
        return None
    b = FunctionBuilder(call)
    normal, _ = _normal_nodes(b, b.shape(range(first_axis(call), call.input(0).rank)), False)
    return b.function([b.op("Mul", [normal, b.inputs[1]])])


def _case(
    x: tuple[int, ...], *affine: tuple[int, ...], outputs: int = 1, version: int = 21, **more: Any
) -> Example:
    operands = (Sample(x), *(Sample(shape, low=0.5, high=1.5) for shape in affine))
    return Example(operands, more, outputs, version=version)


def _grad_case(x: tuple[int, ...], axis: int, outputs: int) -> Example:
    scale = Sample(x[axis:], low=0.5, high=1.5)
    return Example((Sample(x), scale, Sample(x)), {"axis": axis}, outputs)


OPS = (
    OpDef(
        "LayerNormalization",
        infer_layer_norm,
        layer_norm,
        gradient=layer_norm_gradient,
        work=streaming_work(8),
        examples=(
            _case((2, 5, 8), (8,), (8,)),
            _case((3, 4, 5), (4, 5), (4, 5), axis=1, epsilon=1e-2),
            _case((4, 6), (6,), axis=-1),
            _case((2, 3, 4), (2, 3, 4), (2, 3, 4), axis=0),
            _case((2, 3, 5), (1,), (3, 5), axis=1),
            _case((2, 3, 5), (3, 1), (2, 1, 5), axis=2),
            _case((3, 197), (197,), (197,), outputs=3),
        ),
    ),
    OpDef(
        "LayerNormalizationGrad",
        infer_norm_grad,
        layer_norm_grad,
        domain=COEXEC,
        not_differentiable=NO_SECOND_ORDER,
        work=streaming_work(14),
        body=_grad_body(centre=True),
        examples=(
            _grad_case((2, 5, 8), 2, 3),
            _grad_case((3, 4, 5), 1, 3),
            _grad_case((2, 3, 4), 0, 3),
            _grad_case((37, 67), 1, 3),
        ),
    ),
    OpDef(
        "RMSNormalization",
        infer_rms_norm,
        rms_norm,
        gradient=rms_norm_gradient,
        work=streaming_work(5),
        body=rms_norm_body,
        examples=(
            _case((2, 5, 8), (8,), version=23),
            _case((3, 4, 5), (4, 5), axis=1, epsilon=1e-2, version=23),
            _case((2, 3, 5), (1,), axis=1, version=23),
            _case((2, 3, 5), (3, 1), axis=2, version=23),
            _case((3, 197), (197,), version=23),
        ),
    ),
    OpDef(
        "RMSNormalizationGrad",
        infer_norm_grad,
        rms_norm_grad,
        domain=COEXEC,
        not_differentiable=NO_SECOND_ORDER,
        work=streaming_work(10),
        body=_grad_body(centre=False),
        examples=(
            _grad_case((2, 5, 8), 2, 2),
            _grad_case((3, 4, 5), 1, 2),
            _grad_case((37, 67), 1, 2),
        ),
    ),
)
