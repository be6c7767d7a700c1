"""Pooling over windows: maximum, average and Lp norm, with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import COEXEC, Example, GradientScope, OpDef, Sample, Work
from coexec.ops.pool_geometry import PoolGeometry
from coexec.ops.precision import widened

INT64 = np.dtype(np.int64)
SECOND_ORDER = "second derivatives of maximum pooling are not provided"


def infer_max_pool(call: OpCall) -> Sequence[TensorType]:
    y = call.input(0).with_shape(PoolGeometry.of(call).out_shape)
    return (y, TensorType(y.shape, INT64))


def lowest(dtype: np.dtype[Any]) -> Any:
    """The smallest value of a type: -inf for floats."""
    return np.iinfo(dtype).min if np.issubdtype(dtype, np.integer) else -np.inf


def _is_nan(x: Array) -> Array | bool:
    return False if np.issubdtype(x.dtype, np.integer) else np.isnan(x)


def maximum_taps(x: Array, g: PoolGeometry) -> tuple[Array, Array]:
    """Maximum of each window and the number of the first tap that has it (-1: all padding).

    A NaN counts as larger than everything, so that it is not lost.
    """
    best = np.full(g.out_shape, lowest(x.dtype), x.dtype)
    taps = np.full(g.out_shape, -1, np.int64)
    for number, outputs, inputs in g.reads():
        value, so_far = x[inputs], best[outputs]
        better = (value > so_far) | _is_nan(value) | (taps[outputs] < 0)
        best[outputs] = np.where(better, value, so_far)
        taps[outputs] = np.where(better, number, taps[outputs])
    return best, taps


def flat_indices(taps: Array, g: PoolGeometry, column_major: bool) -> Array:
    """Position in X of each window's maximum as ONNX counts it."""
    places = np.unravel_index(np.maximum(taps, 0), g.kernel)
    spatial = np.zeros(g.out_shape, np.int64)
    step = 1
    axes = range(g.rank) if column_major else reversed(range(g.rank))
    for axis in axes:
        start = np.arange(g.out_size[axis]) * g.strides[axis] - g.pads_begin[axis]
        along = start.reshape([-1 if i == axis else 1 for i in range(g.rank)])
        spatial += (along + places[axis] * g.dilations[axis]) * step
        step *= g.in_size[axis]
    planes = np.arange(g.batch * g.channels).reshape(g.batch, g.channels, *(1,) * g.rank)
    return np.asarray(planes * step + spatial)


def max_pool(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Exact in every type, so 16-bit floats need no widening."""
    g = PoolGeometry.of(call)
    best, taps = maximum_taps(operands[0], g)
    if call.output_count < 2:
        return (best,)
    return best, flat_indices(taps, g, bool(call.attribute("storage_order", 0)))


def window_work(call: OpCall) -> Work:
    """One operation per tap of each window."""
    shape = call.attribute("input_shape") or call.input(0).shape
    g = PoolGeometry.of(call, tuple(shape))
    moved = sum(t.nbytes for t in (*call.inputs, *call.outputs) if t is not None)
    return Work(g.taps * prod(g.out_shape), moved)


def window_attributes(call: OpCall, g: PoolGeometry) -> dict[str, Any]:
    """The attributes that define the windows, with padding made explicit."""
    return {
        "kernel_shape": g.kernel,
        "strides": g.strides,
        "dilations": g.dilations,
        "pads": (*g.pads_begin, *g.pads_end),
        "ceil_mode": int(call.attribute("ceil_mode", 0))
        if call.attribute("auto_pad", "NOTSET") in ("", "NOTSET")
        else 0,
    }


def max_pool_gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    attributes = window_attributes(s.call, PoolGeometry.of(s.call))
    return (s.op("MaxPoolGrad", [s.value(0), s.grad()], attributes, domain=COEXEC),)


def infer_like_first(call: OpCall) -> Sequence[TensorType]:
    g = PoolGeometry.of(call)
    if call.input(1).shape != g.out_shape:
        raise ValueError(f"{call.identifier}: dY {call.input(1)} is not {g.out_shape}")
    return (call.input(0),)


@widened
def max_pool_grad(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    x, dy = operands
    g = PoolGeometry.of(call)
    _, taps = maximum_taps(x, g)
    dx = np.zeros_like(x)
    for number, outputs, inputs in g.reads():
        dx[inputs] += np.where(taps[outputs] == number, dy[outputs], 0)
    return (dx,)


def max_pool_grad_body(call: OpCall) -> ir.Function | None:
    """Scatter of dY to the indices that MaxPool reports."""
    b = FunctionBuilder(call)
    x, dy = b.inputs
    _, indices = b.ops("MaxPool", [x], call.attributes, outputs=2)
    flat = b.shape((-1,))
    kind = call.input(0)
    zeros = b.constant(np.zeros(1), kind.dtype)
    zeros = b.op("Expand", [zeros, b.shape((kind.size,))])
    places = [zeros, b.op("Reshape", [indices, flat]), b.op("Reshape", [dy, flat])]
    dx = b.op("ScatterElements", places, {"axis": 0, "reduction": "add"})
    return b.function([b.op("Reshape", [dx, b.shape(kind.shape)])])


def infer_pool(call: OpCall) -> Sequence[TensorType]:
    return (call.input(0).with_shape(PoolGeometry.of(call).out_shape),)


def _divisors(call: OpCall, g: PoolGeometry) -> Array:
    return g.counts(bool(call.attribute("count_include_pad", 0)))


def window_sums(x: Array, g: PoolGeometry) -> Array:
    """Sum of each window; padding is zero."""
    total = np.zeros(g.out_shape, x.dtype)
    for _, outputs, inputs in g.reads():
        total[outputs] += x[inputs]
    return total


@widened
def average_pool(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    g = PoolGeometry.of(call)
    divisors = _divisors(call, g).astype(operands[0].dtype)
    return (window_sums(operands[0], g) / divisors,)


def average_pool_gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    g = PoolGeometry.of(s.call)
    return (_emit_average_grad(s, s.grad(), g, _include_pad(s.call)),)


def _include_pad(call: OpCall) -> int:
    return int(call.attribute("count_include_pad", 0))


def _emit_average_grad(s: GradientScope, dy: ir.Value, g: PoolGeometry, include: int) -> ir.Value:
    attributes = window_attributes(s.call, g) | {
        "input_shape": g.in_shape,
        "count_include_pad": include,
    }
    return s.op("AveragePoolGrad", [dy], attributes, domain=COEXEC)


def _grad_geometry(call: OpCall) -> PoolGeometry:
    g = PoolGeometry.of(call, tuple(int(v) for v in call.attributes["input_shape"]))
    if call.input(0).shape != g.out_shape:
        raise ValueError(f"{call.identifier}: dY {call.input(0)} is not {g.out_shape}")
    return g


def infer_average_pool_grad(call: OpCall) -> Sequence[TensorType]:
    return (call.input(0).with_shape(_grad_geometry(call).in_shape),)


@widened
def average_pool_grad(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    g = _grad_geometry(call)
    share = operands[0] / _divisors(call, g).astype(operands[0].dtype)
    dx = np.zeros(g.in_shape, share.dtype)
    for _, outputs, inputs in g.reads():
        dx[inputs] += share[outputs]
    return (dx,)


def average_pool_grad_gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    """The operator is linear; its transpose is AveragePool."""
    attributes = window_attributes(s.call, _grad_geometry(s.call))
    attributes |= {"count_include_pad": _include_pad(s.call)}
    return (s.op("AveragePool", [s.grad()], attributes),)


def average_pool_grad_body(call: OpCall) -> ir.Function | None:
    """Depthwise ConvTranspose of dY / count with a kernel of ones."""
    g = _grad_geometry(call)
    b = FunctionBuilder(call)
    dtype = call.input(0).dtype
    share = b.op("Div", [b.inputs[0], b.constant(_divisors(call, g)[None, None], dtype)])
    ends = [
        s * (o - 1) + (k - 1) * d + 1 - p - n
        for s, o, k, d, p, n in zip(
            g.strides, g.out_size, g.kernel, g.dilations, g.pads_begin, g.in_size, strict=True
        )
    ]
    attributes = {
        "strides": g.strides,
        "dilations": g.dilations,
        "group": g.channels,
        "kernel_shape": g.kernel,
        "pads": (*g.pads_begin, *(max(e, 0) for e in ends)),
        "output_padding": tuple(max(-e, 0) for e in ends),
    }
    ones = b.constant(np.ones((g.channels, 1, *g.kernel)), dtype)
    return b.function([b.op("ConvTranspose", [share, ones], attributes)])


def _order(call: OpCall) -> int:
    return int(call.attribute("p", 2))


@widened
def lp_pool(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    sums = window_sums(np.abs(operands[0]) ** _order(call), PoolGeometry.of(call))
    return (sums ** (1.0 / _order(call)),)


def lp_pool_body(call: OpCall) -> ir.Function | None:
    """p-th root of (average of |x|^p times the number of elements)."""
    g = PoolGeometry.of(call)
    b = FunctionBuilder(call)
    dtype = call.input(0).dtype
    powers = b.op("Pow", [b.op("Abs", [b.inputs[0]]), b.constant(_order(call), dtype)])
    mean = b.op("AveragePool", [powers], window_attributes(call, g))
    sums = b.op("Mul", [mean, b.constant(g.counts(False)[None, None], dtype)])
    return b.function([b.op("Pow", [sums, b.constant(1.0 / _order(call), dtype)])])


def lp_pool_gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    """dX = sign(x) |x|^(p-1) * sum over windows of dY y^(1-p); 0 where y is 0."""
    g, p = PoolGeometry.of(s.call), _order(s.call)
    x, y = s.value(0), s.outputs[0]
    dtype = s.type_of(x).dtype
    zero, one = s.constant(0, dtype), s.constant(1, dtype)
    vanishes = s.op("Equal", [y, zero])
    safe = s.op("Where", [vanishes, one, y])
    scaled = s.op("Mul", [s.grad(), s.op("Pow", [safe, s.constant(1 - p, dtype)])])
    scaled = s.op("Where", [vanishes, zero, scaled])
    counts = s.constant(g.counts(False)[None, None], dtype)
    spread = _emit_average_grad(s, s.op("Mul", [scaled, counts]), g, 0)
    slope = s.op("Pow", [s.op("Abs", [x]), s.constant(p - 1, dtype)])
    return (s.op("Mul", [spread, s.op("Mul", [s.op("Sign", [x]), slope])]),)


def _case(*shape: int, high: float = 1.0, outputs: int = 1, **attributes: Any) -> Example:
    return Example((Sample(shape, high=high),), attributes, outputs)


_WINDOWS: tuple[tuple[tuple[int, ...], dict[str, Any]], ...] = (
    ((2, 3, 6, 8), {"kernel_shape": (2, 2), "strides": (2, 2)}),
    ((1, 2, 7, 7), {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)}),
    ((2, 2, 6, 5), {"kernel_shape": (3, 2), "pads": (1, 0, 2, 1), "strides": (1, 2)}),
    ((1, 3, 6, 6), {"kernel_shape": (3, 3), "strides": (2, 2), "ceil_mode": 1}),
    ((1, 2, 5, 5), {"kernel_shape": (3, 3), "strides": (2, 2), "auto_pad": "SAME_UPPER"}),
    ((1, 2, 6, 6), {"kernel_shape": (2, 3), "strides": (2, 2), "auto_pad": "SAME_LOWER"}),
    ((1, 2, 8, 7), {"kernel_shape": (2, 3), "dilations": (3, 2), "auto_pad": "VALID"}),
    ((2, 3, 11), {"kernel_shape": (3,), "strides": (2,), "pads": (1, 1)}),
    (
        (1, 2, 4, 5, 6),
        {"kernel_shape": (2, 3, 2), "strides": (2, 1, 2), "pads": (0, 1, 0, 0, 1, 0)},
    ),
)
_INCLUDE: dict[str, Any] = {
    "kernel_shape": (3, 3),
    "strides": (2, 2),
    "pads": (1, 1, 1, 1),
    "count_include_pad": 1,
    "ceil_mode": 1,
}


def _examples(**more: Any) -> tuple[Example, ...]:
    return tuple(_case(*shape, **window, **more) for shape, window in _WINDOWS)


def _explicit(shape: tuple[int, ...], window: dict[str, Any]) -> tuple[PoolGeometry, Any]:
    call = OpCall("MaxPool", (TensorType(shape, np.dtype("float32")),), window)
    g = PoolGeometry.of(call)
    return g, window_attributes(call, g)


def _max_grad_examples() -> tuple[Example, ...]:
    cases = [(shape, *_explicit(shape, window)) for shape, window in _WINDOWS]
    return tuple(
        Example((Sample(shape), Sample(g.out_shape)), attributes, gradient=False)
        for shape, g, attributes in cases
    )


def _average_grad_examples() -> tuple[Example, ...]:
    cases = [_explicit(shape, window) for shape, window in _WINDOWS]
    g, window = _explicit((1, 2, 6, 7), _INCLUDE)
    cases.append((g, window | {"count_include_pad": 1}))
    return tuple(
        Example((Sample(g.out_shape),), window | {"input_shape": g.in_shape}) for g, window in cases
    )


OPS = (
    OpDef(
        "MaxPool",
        infer_max_pool,
        max_pool,
        gradient=max_pool_gradient,
        work=window_work,
        examples=(
            *_examples(),
            _case(2, 2, 5, 6, outputs=2, kernel_shape=(3, 3), strides=(2, 2), pads=(1, 1, 1, 1)),
            _case(1, 2, 5, 6, outputs=2, kernel_shape=(2, 2), storage_order=1),
            Example(
                (Sample((1, 1, 5, 5), "uint8", 0, 9),), {"kernel_shape": (3, 3)}, gradient=False
            ),
        ),
    ),
    OpDef(
        "MaxPoolGrad",
        infer_like_first,
        max_pool_grad,
        domain=COEXEC,
        not_differentiable=SECOND_ORDER,
        work=window_work,
        body=max_pool_grad_body,
        examples=_max_grad_examples(),
    ),
    OpDef(
        "AveragePool",
        infer_pool,
        average_pool,
        gradient=average_pool_gradient,
        work=window_work,
        examples=(*_examples(), _case(1, 2, 6, 7, **_INCLUDE)),
    ),
    OpDef(
        "AveragePoolGrad",
        infer_average_pool_grad,
        average_pool_grad,
        domain=COEXEC,
        gradient=average_pool_grad_gradient,
        work=window_work,
        body=average_pool_grad_body,
        examples=_average_grad_examples(),
    ),
    OpDef(
        "LpPool",
        infer_pool,
        lp_pool,
        gradient=lp_pool_gradient,
        work=window_work,
        body=lp_pool_body,
        examples=(*_examples(), *_examples(p=3)[:2], *_examples(p=1)[:1]),
    ),
)
