"""Normalisation over groups of channels of one image: Group- and InstanceNormalization."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import COEXEC, Example, GradientScope, OpDef, Sample, streaming_work
from coexec.ops.precision import widened

EPSILON = 1e-5


def group_count(call: OpCall) -> int:
    """``num_groups``; every channel is a group of its own in InstanceNormalization."""
    channels = call.input(0).shape[1] if call.input(0).rank > 1 else 0
    if call.op_type == "InstanceNormalization":
        return channels
    groups = int(call.attributes["num_groups"])
    if groups < 1 or channels % groups:
        raise ValueError(f"{call.identifier}: {groups} groups do not divide {channels} channels")
    return groups


def _check(call: OpCall, vectors: Sequence[int]) -> None:
    x = call.input(0)
    if x.rank < 2:
        raise ValueError(f"{call.identifier}: {x} has no channel axis")
    group_count(call)
    for i in vectors:
        if call.input(i).shape != (x.shape[1],):
            raise ValueError(f"{call.identifier}: {call.input(i)} is not one value per channel")


def infer_group_norm(call: OpCall) -> Sequence[TensorType]:
    _check(call, (1, 2))
    return (call.input(0),)


def _normal(call: OpCall, x: Array) -> tuple[Array, Array]:
    """Normalised x as (batch, groups, elements of a group), and 1 / standard deviation."""
    grouped = x.reshape(x.shape[0], group_count(call), -1)
    centred = grouped - grouped.mean(axis=2, keepdims=True)
    variance = (centred * centred).mean(axis=2, keepdims=True)
    inverse = 1 / np.sqrt(variance + call.attribute("epsilon", EPSILON))
    return centred * inverse, inverse


def _per_channel(vector: Array, x: Array) -> Array:
    return vector.reshape(-1, *(1,) * (x.ndim - 2))


@widened
def group_norm(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    x, scale, bias = operands
    normal, _ = _normal(call, x)
    y = normal.reshape(x.shape) * _per_channel(scale, x) + _per_channel(bias, x)
    return (y.astype(x.dtype),)


def group_norm_gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    attributes = {
        "num_groups": group_count(s.call),
        "epsilon": float(s.call.attribute("epsilon", EPSILON)),
    }
    operands = [s.value(0), s.value(1), s.grad()]
    return s.ops("GroupNormalizationGrad", operands, attributes, outputs=3, domain=COEXEC)


def infer_group_norm_grad(call: OpCall) -> Sequence[TensorType]:
    _check(call, (1,))
    if call.input(2).shape != call.input(0).shape:
        raise ValueError(f"{call.identifier}: dY {call.input(2)} is not like X {call.input(0)}")
    return call.input(0), call.input(1), call.input(1)


@widened
def group_norm_grad(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    x, scale, dy = operands
    normal, inverse = _normal(call, x)
    scaled = (dy * _per_channel(scale, x)).reshape(normal.shape)
    product = (scaled * normal).mean(axis=2, keepdims=True)
    mixed = scaled - scaled.mean(axis=2, keepdims=True) - normal * product
    axes = (0, *range(2, x.ndim))
    dscale = (dy * normal.reshape(x.shape)).sum(axis=axes)
    dx = (mixed * inverse).reshape(x.shape)
    return dx, dscale, dy.sum(axis=axes)


def group_norm_body(call: OpCall) -> ir.Function | None:
    """LayerNormalization of each group as one row, then scale and bias per channel."""
    b = FunctionBuilder(call)
    x, scale, bias = b.inputs
    kind = call.input(0)
    rows = (kind.shape[0] * group_count(call), -1)
    grouped = b.op("Reshape", [x, b.shape(rows)])
    length = kind.size // max(rows[0], 1)
    ones = b.constant(np.ones(length), kind.dtype)
    epsilon = float(call.attribute("epsilon", EPSILON))
    normal = b.op("LayerNormalization", [grouped, ones], {"axis": -1, "epsilon": epsilon})
    normal = b.op("Reshape", [normal, b.shape(kind.shape)])
    column = b.shape((-1, *(1,) * (kind.rank - 2)))
    scaled = b.op("Mul", [normal, b.op("Reshape", [scale, column])])
    return b.function([b.op("Add", [scaled, b.op("Reshape", [bias, column])])])


def group_norm_grad_body(call: OpCall) -> ir.Function | None:
    """LayerNormalizationGrad of the groups as rows; sums over images for scale and bias."""
    b = FunctionBuilder(call)
    x, scale, dy = b.inputs
    kind = call.input(0)
    count = kind.shape[0] * group_count(call)
    length = kind.size // max(count, 1)
    rows, column = b.shape((count, length)), b.shape((-1, *(1,) * (kind.rank - 2)))
    grouped = b.op("Reshape", [x, rows])
    ones = b.constant(np.ones(length), kind.dtype)
    attributes = {"axis": -1, "epsilon": float(call.attribute("epsilon", EPSILON))}
    scaled = b.op("Mul", [dy, b.op("Reshape", [scale, column])])
    operands = [grouped, ones, b.op("Reshape", [scaled, rows])]
    dx = b.ops("LayerNormalizationGrad", operands, attributes, outputs=3, domain=COEXEC)[0]
    normal = b.op("LayerNormalization", [grouped, ones], attributes)
    shape = b.shape(kind.shape)
    product = b.op("Mul", [dy, b.op("Reshape", [normal, shape])])
    axes = b.shape((0, *range(2, kind.rank)))
    dscale = b.op("ReduceSum", [product, axes], {"keepdims": 0})
    dbias = b.op("ReduceSum", [dy, axes], {"keepdims": 0})
    return b.function([b.op("Reshape", [dx, shape]), dscale, dbias][: call.output_count])


def _case(*shape: int, **attributes: Any) -> Example:
    vector = (shape[1],)
    operands = (Sample(shape), Sample(vector, low=0.5, high=1.5), Sample(vector))
    return Example(operands, attributes)


def _grad_case(*shape: int, **attributes: Any) -> Example:
    operands = (Sample(shape), Sample((shape[1],), low=0.5, high=1.5), Sample(shape))
    return Example(operands, attributes, 3)


OPS = (
    OpDef(
        "GroupNormalization",
        infer_group_norm,
        group_norm,
        gradient=group_norm_gradient,
        work=streaming_work(8),
        body=group_norm_body,
        examples=(
            _case(2, 6, 4, 5, num_groups=3),
            _case(1, 4, 7, num_groups=1, epsilon=1e-2),
            _case(3, 8, 3, 3, num_groups=8),
            _case(2, 6, 9, 13, num_groups=2),
        ),
    ),
    OpDef(
        "InstanceNormalization",
        infer_group_norm,
        group_norm,
        gradient=group_norm_gradient,
        work=streaming_work(8),
        body=group_norm_body,
        examples=(_case(2, 3, 4, 5), _case(1, 4, 7, epsilon=1e-2), _case(2, 2, 3, 5, 7)),
    ),
    OpDef(
        "GroupNormalizationGrad",
        infer_group_norm_grad,
        group_norm_grad,
        domain=COEXEC,
        not_differentiable="second derivatives of normalisation are not provided",
        work=streaming_work(14),
        body=group_norm_grad_body,
        examples=(
            _grad_case(2, 6, 4, 5, num_groups=3),
            _grad_case(1, 4, 7, num_groups=1),
            _grad_case(3, 5, 9, 7, num_groups=5, epsilon=1e-3),
        ),
    ),
)
