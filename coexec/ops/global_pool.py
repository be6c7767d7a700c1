"""Pooling over all spatial axes at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import COEXEC, Example, GradientScope, OpDef, Sample
from coexec.ops.precision import widened


def infer_global(call: OpCall) -> Sequence[TensorType]:
    x = call.input(0)
    if x.rank < 3:
        raise ValueError(f"{call.identifier}: {x} has no spatial axis")
    return (x.with_shape((*x.shape[:2], *(1,) * (x.rank - 2))),)


def _axes(x: Array) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


def _spatial_size(kind: TensorType) -> int:
    return kind.size // max(kind.shape[0] * kind.shape[1], 1)


@widened
def global_average(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    x: Array = operands[0]
    return (np.asarray(x.mean(axis=_axes(x), keepdims=True)),)


def global_average_gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    kind = s.call.input(0)
    share = s.op("Mul", [s.grad(), s.constant(1.0 / _spatial_size(kind), kind.dtype)])
    return (s.op("Expand", [share, s.constant(np.array(kind.shape, np.int64), "int64")]),)


def global_max(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    x: Array = operands[0]
    return (np.asarray(x.max(axis=_axes(x), keepdims=True)),)


def global_max_gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    """All of it to the first maximum, as a window of the whole plane."""
    window = {"kernel_shape": s.call.input(0).shape[2:]}
    return (s.op("MaxPoolGrad", [s.value(0), s.grad()], window, domain=COEXEC),)


def _order(call: OpCall) -> int:
    return int(call.attribute("p", 2))


@widened
def global_lp(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    x: Array = operands[0]
    sums = (np.abs(x) ** _order(call)).sum(axis=_axes(x), keepdims=True)
    return (np.asarray(sums ** (1.0 / _order(call))),)


def global_lp_body(call: OpCall) -> ir.Function | None:
    """LpPool over one window."""
    b = FunctionBuilder(call)
    window = {"kernel_shape": call.input(0).shape[2:], "p": _order(call)}
    return b.function([b.op("LpPool", [b.inputs[0]], window)])


def global_lp_gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    """dX = dY sign(x) (|x| / y)^(p-1); 0 where y is 0."""
    x, y, p = s.value(0), s.outputs[0], _order(s.call)
    dtype = s.type_of(x).dtype
    vanishes = s.op("Equal", [y, s.constant(0, dtype)])
    ratio = s.op("Div", [s.op("Abs", [x]), s.op("Where", [vanishes, s.constant(1, dtype), y])])
    slope = s.op("Pow", [ratio, s.constant(p - 1, dtype)])
    return (s.op("Mul", [s.op("Mul", [s.grad(), s.op("Sign", [x])]), slope]),)


_EXAMPLES = (
    Example((Sample((2, 3, 4, 5)),)),
    Example((Sample((1, 2, 7)),)),
    Example((Sample((2, 2, 3, 2, 4)),)),
    Example((Sample((3, 17, 9, 15)),)),
)

OPS = (
    OpDef(
        "GlobalAveragePool",
        infer_global,
        global_average,
        gradient=global_average_gradient,
        examples=_EXAMPLES,
    ),
    OpDef(
        "GlobalMaxPool",
        infer_global,
        global_max,
        gradient=global_max_gradient,
        examples=_EXAMPLES,
    ),
    OpDef(
        "GlobalLpPool",
        infer_global,
        global_lp,
        gradient=global_lp_gradient,
        body=global_lp_body,
        examples=_EXAMPLES,
    ),
)
