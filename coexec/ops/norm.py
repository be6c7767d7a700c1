"""Normalisations made of simpler operators: LRN, LpNormalization, MeanVarianceNormalization.

Their bodies and gradients are elementwise operators, reductions and pooling, which is efficient
enough; the larger ones have files of their own (``batch_norm``, ``layer_norm``, ``group_norm``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import COEXEC, Example, GradientScope, OpDef, Sample, streaming_work
from coexec.ops.precision import widened

Emitter = FunctionBuilder | GradientScope


def infer_lrn(call: OpCall) -> Sequence[TensorType]:
    if call.input(0).rank < 2 or int(call.attributes["size"]) < 1:
        raise ValueError(f"LRN: {call.input(0)} has no channels, or size is not positive")
    return (call.input(0),)


def lrn_reach(call: OpCall) -> tuple[int, int]:
    """Channels before and after that the region of a channel takes in."""
    size = int(call.attributes["size"])
    return (size - 1) // 2, size // 2


def lrn_scalars(call: OpCall) -> tuple[float, float, float]:
    """alpha, beta and bias with ONNX's defaults."""
    alpha = float(call.attribute("alpha", 1e-4))
    return alpha, float(call.attribute("beta", 0.75)), float(call.attribute("bias", 1.0))


@widened
def lrn(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    x: Array = operands[0]
    alpha, beta, bias = lrn_scalars(call)
    before, after = lrn_reach(call)
    squares = x * x
    channels = x.shape[1]
    total = np.zeros_like(x)
    for shift in range(-before, after + 1):
        low, high = max(0, -shift), min(channels, channels - shift)
        if low < high:
            total[:, low:high] += squares[:, low + shift : high + shift]
    return (x * (bias + alpha / int(call.attributes["size"]) * total) ** -beta,)


def _lrn_window(call: OpCall) -> dict[str, Any]:
    """A mean over ``size`` channels (zeros beyond the ends) as AveragePool of (N, 1, C, rest)."""
    before, after = lrn_reach(call)
    return {
        "kernel_shape": (before + after + 1, 1),
        "pads": (before, 0, after, 0),
        "count_include_pad": 1,
    }


def _lrn_planes(call: OpCall) -> tuple[int, ...]:
    n, c, *rest = call.input(0).shape
    return n, 1, c, int(np.prod(rest, dtype=np.int64))


def _sizes(e: Emitter, sizes: Sequence[int]) -> ir.Value:
    return e.constant(np.array(sizes, np.int64), "int64")


def _lrn_base(e: Emitter, x: ir.Value) -> ir.Value:
    """bias + alpha * mean of squares over the region."""
    call = e.call
    dtype = call.input(0).dtype
    alpha, _, bias = lrn_scalars(call)
    planes = e.op("Reshape", [e.op("Mul", [x, x]), _sizes(e, _lrn_planes(call))])
    mean = e.op("AveragePool", [planes], _lrn_window(call))
    mean = e.op("Reshape", [mean, _sizes(e, call.input(0).shape)])
    scaled = e.op("Mul", [mean, e.constant(alpha, dtype)])
    return e.op("Add", [scaled, e.constant(bias, dtype)])


def lrn_body(call: OpCall) -> ir.Function | None:
    """AveragePool over the channel axis."""
    b = FunctionBuilder(call)
    _, beta, _ = lrn_scalars(call)
    exponent = b.constant(-beta, call.input(0).dtype)
    power = b.op("Pow", [_lrn_base(b, b.inputs[0]), exponent])
    return b.function([b.op("Mul", [b.inputs[0], power])])


def lrn_gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    """With D the base: dX = dY D^-beta - 2 alpha beta x M(dY x D^(-beta-1)).

    M is the transpose of the mean over the region.
    """
    x, dy, kind = s.value(0), s.grad(), s.call.input(0)
    alpha, beta, _ = lrn_scalars(s.call)
    base = _lrn_base(s, x)
    power = s.op("Pow", [base, s.constant(-beta, kind.dtype)])
    direct = s.op("Mul", [dy, power])
    inner = s.op("Div", [s.op("Mul", [direct, x]), base])
    planes = _lrn_planes(s.call)
    window = _lrn_window(s.call) | {"input_shape": planes}
    inner = s.op("Reshape", [inner, _sizes(s, planes)])
    spread = s.op("AveragePoolGrad", [inner], window, domain=COEXEC)
    spread = s.op("Reshape", [spread, _sizes(s, kind.shape)])
    factor = s.constant(2 * alpha * beta, kind.dtype)
    return (s.op("Sub", [direct, s.op("Mul", [s.op("Mul", [x, factor]), spread])]),)


def infer_same(call: OpCall) -> Sequence[TensorType]:
    return (call.input(0),)


def _lp_parameters(call: OpCall) -> tuple[int, int]:
    """Axis from the front, and p (1 or 2)."""
    rank, p = call.input(0).rank, int(call.attribute("p", 2))
    axis = int(call.attribute("axis", -1))
    if p not in (1, 2) or not -rank <= axis < rank:
        raise ValueError(f"LpNormalization: p {p} or axis {axis} of {call.input(0)} is invalid")
    return axis % rank, p


def infer_lp(call: OpCall) -> Sequence[TensorType]:
    _lp_parameters(call)
    return (call.input(0),)


@widened
def lp_norm(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    x: Array = operands[0]
    axis, p = _lp_parameters(call)
    if p == 1:
        norm = np.abs(x).sum(axis=axis, keepdims=True)
    else:
        norm = np.sqrt((x * x).sum(axis=axis, keepdims=True))
    return (x / np.where(norm == 0, norm.dtype.type(1), norm),)


def _lp_divisor(e: Emitter, x: ir.Value) -> ir.Value:
    """The norm along the axis, 1 where it is 0."""
    axis, p = _lp_parameters(e.call)
    dtype = e.call.input(0).dtype
    reduction = "ReduceL1" if p == 1 else "ReduceL2"
    norm = e.op(reduction, [x, _sizes(e, (axis,))], {"keepdims": 1})
    vanishes = e.op("Equal", [norm, e.constant(0, dtype)])
    return e.op("Where", [vanishes, e.constant(1, dtype), norm])


def lp_body(call: OpCall) -> ir.Function | None:
    """x / ReduceL1 or ReduceL2."""
    b = FunctionBuilder(call)
    return b.function([b.op("Div", [b.inputs[0], _lp_divisor(b, b.inputs[0])])])


def lp_gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    """dX = (dY - u sum(dY y)) / norm with u = y for p = 2 and sign(x) for p = 1."""
    axis, p = _lp_parameters(s.call)
    x, y, dy = s.value(0), s.outputs[0], s.grad()
    axes = _sizes(s, (axis,))
    along = s.op("ReduceSum", [s.op("Mul", [dy, y]), axes], {"keepdims": 1})
    direction = y if p == 2 else s.op("Sign", [x])
    mixed = s.op("Sub", [dy, s.op("Mul", [direction, along])])
    return (s.op("Div", [mixed, _lp_divisor(s, x)]),)


MVN_EPSILON = 1e-9
"""Added to the standard deviation, as in ONNX's function body."""


def _mvn_axes(call: OpCall) -> tuple[int, ...]:
    axes = call.attribute("axes") or (0, 2, 3)
    rank = call.input(0).rank
    if any(not -rank <= a < rank for a in axes):
        raise ValueError(f"MeanVarianceNormalization: axes {axes} of {call.input(0)}")
    return tuple(int(a) % rank for a in axes)


def infer_mvn(call: OpCall) -> Sequence[TensorType]:
    _mvn_axes(call)
    return (call.input(0),)


@widened
def mvn(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    x: Array = operands[0]
    axes = _mvn_axes(call)
    centred = x - x.mean(axis=axes, keepdims=True)
    deviation = np.sqrt((centred * centred).mean(axis=axes, keepdims=True))
    return (centred / (deviation + MVN_EPSILON),)


def _mvn_parts(e: Emitter, x: ir.Value) -> tuple[ir.Value, ir.Value, ir.Value]:
    """x - mean, the standard deviation, and that plus epsilon."""
    axes = _sizes(e, _mvn_axes(e.call))
    centred = e.op("Sub", [x, e.op("ReduceMean", [x, axes], {"keepdims": 1})])
    squares = e.op("Mul", [centred, centred])
    deviation = e.op("Sqrt", [e.op("ReduceMean", [squares, axes], {"keepdims": 1})])
    epsilon = e.constant(MVN_EPSILON, e.call.input(0).dtype)
    return centred, deviation, e.op("Add", [deviation, epsilon])


def mvn_body(call: OpCall) -> ir.Function | None:
    """Reductions and elementwise operators."""
    b = FunctionBuilder(call)
    centred, _, divisor = _mvn_parts(b, b.inputs[0])
    return b.function([b.op("Div", [centred, divisor])])


def mvn_gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    """dX = (dY - mean(dY)) / (d + e) - y mean(dY y) / d with deviation d and epsilon e."""
    dy, y = s.grad(), s.outputs[0]
    axes = _sizes(s, _mvn_axes(s.call))
    _, deviation, divisor = _mvn_parts(s, s.value(0))
    mean = s.op("ReduceMean", [dy, axes], {"keepdims": 1})
    direct = s.op("Div", [s.op("Sub", [dy, mean]), divisor])
    along = s.op("ReduceMean", [s.op("Mul", [dy, y]), axes], {"keepdims": 1})
    return (s.op("Sub", [direct, s.op("Mul", [y, s.op("Div", [along, deviation])])]),)


def _case(*shape: int, **attributes: Any) -> Example:
    return Example((Sample(shape),), attributes)


OPS = (
    OpDef(
        "LRN",
        infer_lrn,
        lrn,
        gradient=lrn_gradient,
        work=streaming_work(12),
        body=lrn_body,
        examples=(
            _case(2, 5, 3, 4, size=3, alpha=0.3, beta=0.5, bias=2.0),
            _case(1, 7, 6, size=4, alpha=0.5),
            _case(2, 3, 4, 4, size=9, alpha=1.0, beta=0.75, bias=1.5),
        ),
    ),
    OpDef(
        "LpNormalization",
        infer_lp,
        lp_norm,
        gradient=lp_gradient,
        work=streaming_work(4),
        body=lp_body,
        examples=(_case(3, 5), _case(2, 4, 3, axis=1), _case(3, 5, axis=0, p=1)),
    ),
    OpDef(
        "MeanVarianceNormalization",
        infer_mvn,
        mvn,
        gradient=mvn_gradient,
        work=streaming_work(8),
        body=mvn_body,
        examples=(_case(2, 3, 4, 5), _case(3, 4, 5, axes=(1, 2)), _case(4, 6, axes=(-1,))),
    ),
)
