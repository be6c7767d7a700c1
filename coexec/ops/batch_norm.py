"""Batch normalisation for training and inference, with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import (
    COEXEC,
    Example,
    GradientScope,
    OpDef,
    Sample,
    Work,
    streaming_work,
)
from coexec.ops.precision import widened

EPSILON, MOMENTUM = 1e-5, 0.9
"""What ONNX takes where a node says nothing."""
_SINGLE, _DOUBLE = np.dtype(np.float32), np.dtype(np.float64)


def _channels(call: OpCall) -> int:
    x = call.input(0)
    if x.rank < 2:
        raise ValueError(f"{call.identifier}: {x} has no channel axis")
    return x.shape[1]


def _check_vectors(call: OpCall, positions: Sequence[int]) -> None:
    channels = _channels(call)
    for i in positions:
        if call.input(i).shape != (channels,):
            raise ValueError(f"{call.identifier}: {call.input(i)} is not one value per channel")


def statistics_of(graph: ir.Graph) -> set[ir.Value]:
    """Initializers that normalisations have as stored means and variances; none is trained."""
    return {
        value
        for node in graph
        if node.op_type == "BatchNormalization" and not node.domain
        for value in node.inputs[3:5]
        if value is not None and value.is_initializer()
    }


def is_training(call: OpCall) -> bool:
    """Whether a BatchNormalization normalises by the statistics of its own batch."""
    return bool(call.attribute("training_mode", 0))


def infer_batch_norm(call: OpCall) -> Sequence[TensorType]:
    _check_vectors(call, range(1, 5))
    if call.output_count > 1 and not is_training(call):
        raise ValueError("BatchNormalization: running statistics need training_mode=1")
    return call.input(0), call.input(3), call.input(4)


def _axes(x: Array) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))


def _per_channel(vector: Array, x: Array) -> Array:
    return vector.reshape(-1, *(1,) * (x.ndim - 2))


def _statistics(x: Array) -> tuple[Array, Array]:
    """Mean and (biased) variance per channel."""
    mean = x.mean(axis=_axes(x))
    centred = x - _per_channel(mean, x)
    return mean, (centred * centred).mean(axis=_axes(x))


@widened
def batch_norm(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    x, scale, bias, mean, variance = operands
    epsilon = call.attribute("epsilon", EPSILON)
    outputs: list[Array] = []
    if is_training(call):
        batch_mean, batch_variance = _statistics(x)
        keep = call.attribute("momentum", MOMENTUM)
        outputs = [
            (mean * keep + batch_mean * (1 - keep)).astype(mean.dtype),
            (variance * keep + batch_variance * (1 - keep)).astype(variance.dtype),
        ]
        mean, variance = batch_mean, batch_variance
    factor = scale / np.sqrt(variance + epsilon)
    y = (x - _per_channel(mean, x)) * _per_channel(factor, x) + _per_channel(bias, x)
    return (y.astype(x.dtype), *outputs)


def batch_norm_gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    """Running statistics are state: nothing flows through them in training mode."""
    if not is_training(s.call):
        return _inference_gradient(s)
    attributes = {"epsilon": float(s.call.attribute("epsilon", EPSILON))}
    operands = [s.value(0), s.value(1), s.grad()]
    grads = s.ops("BatchNormalizationGrad", operands, attributes, outputs=3, domain=COEXEC)
    return (*grads, None, None)


def _inference_gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    """Y = (x - mean) k + B with k = scale / sqrt(variance + epsilon) per channel."""
    x, scale, mean, variance, dy = s.value(0), s.value(1), s.value(3), s.value(4), s.grad()
    kind = s.type_of(variance)
    epsilon = s.constant(s.call.attribute("epsilon", EPSILON), kind.dtype)
    inverse = s.op("Reciprocal", [s.op("Sqrt", [s.op("Add", [variance, epsilon])])])
    factor = s.op("Mul", [_cast(s, scale, kind.dtype), inverse])
    rank = s.type_of(x).rank
    shape = s.constant(np.array([-1, *(1,) * (rank - 2)], np.int64), "int64")
    wide = _cast(s, s.op("Reshape", [factor, shape]), s.type_of(x).dtype)
    dx = s.op("Mul", [dy, wide]) if s.wanted[0] else None
    if not any(s.wanted[1:]):
        return dx, None, None, None, None
    centred, total = _inference_sums(s, x, mean, dy)
    dscale = s.op("Mul", [centred, inverse])
    dmean = s.op("Neg", [s.op("Mul", [factor, total])]) if s.wanted[3] else None
    slope = s.op("Mul", [factor, s.op("Mul", [inverse, s.constant(-0.5, kind.dtype)])])
    dvariance = s.op("Mul", [dscale, slope]) if s.wanted[4] else None
    parameter = s.type_of(scale).dtype
    return dx, _cast(s, dscale, parameter), _cast(s, total, parameter), dmean, dvariance


def _inference_sums(
    s: GradientScope, x: ir.Value, mean: ir.Value, dy: ir.Value
) -> tuple[ir.Value, ir.Value]:
    """Sums of dy (x - mean) and of dy per channel, in the type of the mean.

    One pass over x and dy where both are wanted and all is of one type; else sums on their own,
    of which the one that nobody reads falls away.
    """
    kinds = {s.type_of(value).dtype for value in (x, mean, dy)}
    if s.wanted[1] and s.wanted[2] and len(kinds) == 1 and kinds <= {_SINGLE, _DOUBLE}:
        along, total = s.ops("BatchNormalizationSums", [x, mean, dy], outputs=2, domain=COEXEC)
        return along, total
    dtype = s.type_of(mean).dtype
    axes = s.constant(np.array([0, *range(2, s.type_of(x).rank)], np.int64), "int64")
    total = _cast(s, s.op("ReduceSum", [dy, axes], {"keepdims": 0}), dtype)
    moment = s.op("ReduceSum", [s.op("Mul", [dy, x]), axes], {"keepdims": 0})
    return s.op("Sub", [_cast(s, moment, dtype), s.op("Mul", [mean, total])]), total


def _cast(s: GradientScope, value: ir.Value, dtype: np.dtype[Any]) -> ir.Value:
    if s.type_of(value).dtype == dtype:
        return value
    return s.op("Cast", [value], {"to": int(ir.DataType.from_numpy(dtype))})


def infer_batch_norm_grad(call: OpCall) -> Sequence[TensorType]:
    _check_vectors(call, (1,))
    if call.input(2).shape != call.input(0).shape:
        raise ValueError(f"{call.identifier}: dY {call.input(2)} is not like X {call.input(0)}")
    return call.input(0), call.input(1), call.input(1)


@widened
def batch_norm_grad(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    x, scale, dy = operands
    mean, variance = _statistics(x)
    inverse = 1 / np.sqrt(variance + call.attribute("epsilon", EPSILON))
    normal = (x - _per_channel(mean, x)) * _per_channel(inverse, x)
    dbias = dy.sum(axis=_axes(x))
    dscale = (dy * normal).sum(axis=_axes(x))
    count = x.size // x.shape[1]
    mixed = dy - _per_channel(dbias / count, x) - normal * _per_channel(dscale / count, x)
    dx = mixed * _per_channel(scale * inverse, x)
    return dx.astype(x.dtype), dscale.astype(scale.dtype), dbias.astype(scale.dtype)


def batch_norm_grad_body(call: OpCall) -> ir.Function | None:
    """The same in reductions and elementwise operators."""
    kind = call.input(0)
    if kind.dtype != call.input(1).dtype:
        return None
    b = FunctionBuilder(call)
    x, scale, dy = b.inputs
    axes = b.shape((0, *range(2, kind.rank)))
    column = b.shape((-1, *(1,) * (kind.rank - 2)))

    def mean_of(value: ir.Value) -> ir.Value:
        return b.op("ReduceMean", [value, axes], {"keepdims": 1})

    centred = b.op("Sub", [x, mean_of(x)])
    variance = mean_of(b.op("Mul", [centred, centred]))
    epsilon = b.constant(call.attribute("epsilon", EPSILON), kind.dtype)
    inverse = b.op("Reciprocal", [b.op("Sqrt", [b.op("Add", [variance, epsilon])])])
    normal = b.op("Mul", [centred, inverse])
    product = b.op("Mul", [dy, normal])
    mixed = b.op("Sub", [b.op("Sub", [dy, mean_of(dy)]), b.op("Mul", [normal, mean_of(product)])])
    factor = b.op("Mul", [b.op("Reshape", [scale, column]), inverse])
    dscale = b.op("ReduceSum", [product, axes], {"keepdims": 0})
    dbias = b.op("ReduceSum", [dy, axes], {"keepdims": 0})
    return b.function([b.op("Mul", [mixed, factor]), dscale, dbias][: call.output_count])


def batch_norm_work(call: OpCall) -> Work:
    """Inference 2 operations per element, with statistics 7."""
    return streaming_work(7 if is_training(call) else 2)(call)


def _case(*shape: int, outputs: int = 1, gradient: bool = True, **attributes: Any) -> Example:
    vector = (shape[1],)
    operands = (
        Sample(shape),
        Sample(vector, low=0.5, high=1.5),
        Sample(vector),
        Sample(vector),
        Sample(vector, low=0.5, high=1.5),
    )
    return Example(operands, attributes, outputs, gradient=gradient)


def _grad_case(*shape: int, **attributes: Any) -> Example:
    operands = (Sample(shape), Sample((shape[1],), low=0.5, high=1.5), Sample(shape))
    return Example(operands, attributes, 3)


OPS = (
    OpDef(
        "BatchNormalization",
        infer_batch_norm,
        batch_norm,
        gradient=batch_norm_gradient,
        work=batch_norm_work,
        # Elements of X are read for the last time when those of Y are written.
        in_place=((0, 0), (1, 3), (2, 4)),
        examples=(
            _case(2, 3, 4, 5),
            _case(3, 7, 6, epsilon=1e-2),
            _case(5, 4),
            _case(2, 3, 4, 5, training_mode=1),
            _case(4, 3, training_mode=1),
            _case(2, 5, 3, 2, 2, training_mode=1, epsilon=1e-3),
            _case(3, 2, 9, 7, outputs=3, gradient=False, training_mode=1, momentum=0.8),
            _case(7, 40, 5, 3, outputs=3, gradient=False, training_mode=1),
            _case(6, 5, 13, 13, gradient=False, training_mode=1),
            _case(6, 2, 15, 160, gradient=False, training_mode=1),
        ),
    ),
    OpDef(
        "BatchNormalizationGrad",
        infer_batch_norm_grad,
        batch_norm_grad,
        domain=COEXEC,
        not_differentiable="second derivatives of batch normalisation are not provided",
        work=streaming_work(12),
        body=batch_norm_grad_body,
        # Elements of X and dY are read for the last time when that of dX is written.
        in_place=((0, 2), (0, 0)),
        examples=(
            _grad_case(2, 3, 4, 5),
            _grad_case(4, 7, 9),
            _grad_case(6, 3),
            _grad_case(3, 2, 17, 19, epsilon=1e-3),
            _grad_case(5, 70),
            _grad_case(7, 40, 5, 3),
            _grad_case(5, 5, 13, 13),
        ),
    ),
)
