"""Resize: separable resampling, and its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import COEXEC, Example, GradientScope, OpDef, Sample, Work
from coexec.ops.precision import widened
from coexec.ops.resize_geometry import AxisMap, ResizeGeometry


def infer_resize(call: OpCall) -> Sequence[TensorType]:
    return (call.input(0).with_shape(ResizeGeometry.of(call).out_shape),)


def _column(values: Array, axis: int, rank: int) -> Array:
    return values.reshape([-1 if i == axis else 1 for i in range(rank)])


def _resample(x: Array, g: ResizeGeometry, along: AxisMap) -> Array:
    indices, weights = g.taps(along)
    if g.mode == "nearest":
        y = np.take(x, indices[:, 0], axis=along.axis)
    else:
        y = np.zeros((*x.shape[: along.axis], along.out_size, *x.shape[along.axis + 1 :]), x.dtype)
        for index, weight in zip(indices.T, weights.T, strict=True):
            factor = _column(weight.astype(x.dtype), along.axis, x.ndim)
            y += np.take(x, index, axis=along.axis) * factor
    outside = g.outside(along)
    if outside.any():
        y = np.where(_column(outside, along.axis, x.ndim), x.dtype.type(g.extrapolation), y)
    return y


@widened
def resize(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Integers are interpolated in float64, rounded towards zero and saturated."""
    x: Array = operands[0]
    g = ResizeGeometry.of(call)
    exact = g.mode == "nearest" or x.dtype.kind == "f"
    y = x if exact else x.astype(np.float64)
    for along in g.axes:
        y = _resample(y, g, along)
    if not exact:
        limits = np.iinfo(x.dtype)
        y = np.clip(y, limits.min, limits.max)
    return (y.astype(x.dtype),)


def resize_gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    """The operator is linear in X (up to extrapolated constants): its transpose."""
    attributes = dict(s.call.attributes) | {"input_shape": s.call.input(0).shape}
    operands = [s.grad(), *s.inputs[1:]]
    dx = s.op("ResizeGrad", operands, attributes, domain=COEXEC)
    return (dx, *(None for _ in s.inputs[1:]))


def infer_resize_grad(call: OpCall) -> Sequence[TensorType]:
    g = ResizeGeometry.of(call)
    if call.input(0).shape != g.out_shape:
        raise ValueError(f"{call.identifier}: dY {call.input(0)} is not {g.out_shape}")
    return (call.input(0).with_shape(g.in_shape),)


def resampling_matrix(g: ResizeGeometry, along: AxisMap) -> Array:
    """The axis as a matrix: y = M x with M (out_size, in_size) in float64."""
    indices, weights = g.taps(along)
    matrix = np.zeros((along.out_size, along.in_size))
    rows = np.broadcast_to(np.arange(along.out_size)[:, None], indices.shape)
    np.add.at(matrix, (rows, indices), weights)
    return matrix


@widened
def resize_grad(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    dx: Array = operands[0]
    g = ResizeGeometry.of(call)
    for along in reversed(g.axes):
        matrix = resampling_matrix(g, along).astype(dx.dtype)
        dx = np.moveaxis(np.moveaxis(dx, along.axis, -1) @ matrix, -1, along.axis)
    return (np.ascontiguousarray(dx),)


def resize_grad_gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    """Back to Resize, whose extrapolated outputs must then be 0."""
    attributes = {k: v for k, v in s.call.attributes.items() if k != "input_shape"}
    attributes["extrapolation_value"] = 0.0
    dy = s.op("Resize", [s.grad(), *s.inputs[1:]], attributes)
    return (dy, *(None for _ in s.inputs[1:]))


def resize_grad_body(call: OpCall) -> ir.Function | None:
    """Each axis in turn as a product with its transposed resampling matrix."""
    g = ResizeGeometry.of(call)
    b = FunctionBuilder(call)
    value = b.inputs[0]
    rank = len(g.in_shape)
    for along in reversed(g.axes):
        matrix = b.constant(resampling_matrix(g, along), call.input(0).dtype)
        perm = (*(i for i in range(rank) if i != along.axis), along.axis)
        back = tuple(int(i) for i in np.argsort(perm))
        moved = b.op("Transpose", [value], {"perm": perm})
        value = b.op("Transpose", [b.op("MatMul", [moved, matrix])], {"perm": back})
    if not g.axes:
        value = b.op("Identity", [value])
    return b.function([value])


def resize_work(call: OpCall) -> Work:
    """Two operations per tap of each output, counting the axes of the larger side."""
    g = ResizeGeometry.of(call)
    taps = prod(g.taps(along)[0].shape[1] for along in g.axes)
    moved = sum(t.nbytes for t in (call.inputs[0], call.outputs[0]) if t is not None)
    return Work(2 * prod(g.out_shape) * taps, moved)


def _scales(*values: float) -> Array:
    return np.array(values, np.float32)


def _sizes(*values: int) -> Array:
    return np.array(values, np.int64)


def _case(
    shape: tuple[int, ...],
    scales: Array | None = None,
    sizes: Array | None = None,
    roi: Array | None = None,
    transform: str = "half_pixel",
    **attributes: Any,
) -> Example:
    attributes["coordinate_transformation_mode"] = transform
    operands = (Sample(shape), roi, scales, *((sizes,) if sizes is not None else ()))
    return Example(operands, attributes)


_ROI = np.array([0, 0, 0.4, 0.6, 1, 1, 1.2, 0.9], np.float32)
_EXAMPLES = (
    _case((1, 2, 3, 4), _scales(1, 1, 2, 2)),
    _case((1, 2, 5, 4), _scales(1, 1, 0.6, 1.7), nearest_mode="floor", transform="asymmetric"),
    _case((2, 1, 3, 4), sizes=_sizes(2, 1, 7, 3), nearest_mode="ceil"),
    _case((1, 2, 4, 5), sizes=_sizes(8, 2), axes=(2, 3), nearest_mode="round_prefer_ceil"),
    _case((1, 2, 3, 4), _scales(1, 1, 2, 2), mode="linear"),
    _case((2, 3, 5, 7), sizes=_sizes(2, 3, 9, 4), mode="linear", transform="align_corners"),
    _case((1, 1, 4, 4), sizes=_sizes(1, 1, 3, 1), mode="linear", transform="pytorch_half_pixel"),
    _case((1, 1, 6, 6), _scales(1, 1, 0.8, 0.7), mode="linear", transform="half_pixel_symmetric"),
    _case((1, 2, 6, 5), _scales(1, 1, 0.5, 0.6), mode="linear", antialias=1),
    _case((1, 2, 5), _scales(1, 1, 2.5), mode="linear"),
    _case((1, 2, 3, 4, 5), _scales(1, 1, 2, 1.5, 2), mode="linear"),
    _case((1, 2, 5, 19), sizes=_sizes(1, 2, 9, 37), nearest_mode="floor", transform="asymmetric"),
    _case((2, 3, 9), sizes=_sizes(2, 3, 17), nearest_mode="floor", transform="asymmetric"),
    _case((1, 2, 5, 6), _scales(1, 1, 1.6, 2), mode="cubic"),
    _case((1, 1, 4, 4), _scales(1, 1, 2, 0.8), mode="cubic", cubic_coeff_a=-0.5, exclude_outside=1),
    _case((1, 1, 7, 6), sizes=_sizes(3, 3), axes=(2, 3), mode="cubic", antialias=1),
    _case(
        (1, 1, 4, 4),
        sizes=_sizes(1, 1, 3, 5),
        roi=_ROI,
        mode="linear",
        extrapolation_value=0.0,
        transform="tf_crop_and_resize",
    ),
)


def _grad_case(example: Example) -> Example:
    x, *values = example.inputs
    assert isinstance(x, Sample)
    constants = {i + 1: np.asarray(v) for i, v in enumerate(values) if v is not None}
    kinds = [None if v is None else TensorType.of(np.asarray(v)) for v in values]
    call = OpCall(
        "Resize",
        (TensorType(x.shape, np.dtype(x.dtype)), *kinds),
        example.attributes,
        constants=constants,
    )
    shape = ResizeGeometry.of(call).out_shape
    return Example((Sample(shape), *values), dict(example.attributes) | {"input_shape": x.shape})


OPS = (
    OpDef(
        "Resize",
        infer_resize,
        resize,
        gradient=resize_gradient,
        work=resize_work,
        value_inputs=(1, 2, 3),
        examples=_EXAMPLES,
    ),
    OpDef(
        "ResizeGrad",
        infer_resize_grad,
        resize_grad,
        domain=COEXEC,
        gradient=resize_grad_gradient,
        work=resize_work,
        value_inputs=(1, 2, 3),
        body=resize_grad_body,
        examples=tuple(map(_grad_case, _EXAMPLES)),
    ),
)
