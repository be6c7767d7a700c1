"""Softmax, LogSoftmax and Hardmax along one axis, with the fused gradients of the first two."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.axes import normalize_axis
from coexec.ops.elementwise import computed, infer_float, require_one_type
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import COEXEC, Example, GradientScope, OpDef, Sample, streaming_work


def softmax_axis(call: OpCall) -> int:
    """The axis that a call normalises over, counted from the front (default: the last)."""
    return normalize_axis(int(call.attribute("axis", -1)), call.input(0).rank)


def log_softmax_of(x: Array, axis: int) -> Array:
    """x - log(sum(exp(x))) along ``axis``, shifted by the maximum."""
    shifted = x - np.max(x, axis=axis, keepdims=True, initial=-np.inf)
    return np.asarray(shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True)))


def softmax(call: OpCall, x: Array) -> Array:
    axis = softmax_axis(call)
    e = np.exp(x - np.max(x, axis=axis, keepdims=True, initial=-np.inf))
    return np.asarray(e / np.sum(e, axis=axis, keepdims=True))


def log_softmax(call: OpCall, x: Array) -> Array:
    return log_softmax_of(x, softmax_axis(call))


def hardmax(call: OpCall, x: Array) -> Array:
    """1 at the first maximum, 0 elsewhere."""
    axis = softmax_axis(call)
    if x.size == 0:
        return x
    positions = np.expand_dims(np.argmax(x, axis=axis), axis)
    result = np.zeros_like(x)
    np.put_along_axis(result, positions, 1, axis=axis)
    return result


def softmax_grad(call: OpCall, dy: Array, y: Array) -> Array:
    total = np.sum(dy * y, axis=softmax_axis(call), keepdims=True)
    return np.asarray(y * (dy - total))


def log_softmax_grad(call: OpCall, dy: Array, y: Array) -> Array:
    return np.asarray(dy - np.exp(y) * np.sum(dy, axis=softmax_axis(call), keepdims=True))


def infer_softmax(call: OpCall) -> Sequence[TensorType]:
    softmax_axis(call)
    return infer_float(call)


def infer_softmax_grad(call: OpCall) -> Sequence[TensorType]:
    """dy and y of one type and shape."""
    softmax_axis(call)
    require_one_type(call, (0, 1))
    if call.input(0).shape != call.input(1).shape:
        dy, y = call.input(0), call.input(1)
        raise ValueError(f"{call.identifier}: {dy} and {y} must be of one shape")
    return (call.input(0),)


def softmax_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    operator = f"{g.call.op_type}Grad"
    axis = {"axis": softmax_axis(g.call)}
    return (g.op(operator, [g.grad(), _cleaned(g.outputs[0])], axis, domain=COEXEC),)


def _cleaned(y: ir.Value) -> ir.Value:
    """``y`` as the model goes on with it, if that replaces NaN: rows of which all is masked.

    PyTorch's exporters write attention so. Of such rows the gradient is 0; of NaN it would be NaN.
    """
    for node, _ in y.uses():
        if node.op_type == "Where" and not node.domain and node.inputs[2] is y:
            condition = node.inputs[0]
            test = None if condition is None else condition.producer()
            found = node.outputs[0]
            if test is not None and _is_nan_of(test, y) and found.shape == y.shape:
                return found
    return y


def _is_nan_of(node: ir.Node, y: ir.Value) -> bool:
    return node.op_type == "IsNaN" and not node.domain and node.inputs[0] is y


def softmax_grad_body(call: OpCall) -> ir.Function:
    """y * (dy - sum(dy * y))."""
    b = FunctionBuilder(call)
    dy, y = b.inputs
    axes = b.shape([softmax_axis(call)])
    total = b.op("ReduceSum", [b.op("Mul", [dy, y]), axes], {"keepdims": 1})
    return b.function([b.op("Mul", [y, b.op("Sub", [dy, total])])])


def log_softmax_grad_body(call: OpCall) -> ir.Function:
    """dy - exp(y) * sum(dy)."""
    b = FunctionBuilder(call)
    dy, y = b.inputs
    total = b.op("ReduceSum", [dy, b.shape([softmax_axis(call)])], {"keepdims": 1})
    return b.function([b.op("Sub", [dy, b.op("Mul", [b.op("Exp", [y]), total])])])


SHAPES: tuple[tuple[tuple[int, ...], int], ...] = (
    ((3, 5), -1),
    ((2, 7, 19), 1),
    ((4, 3, 5), 0),
    ((5, 67), 1),
    ((1,), 0),
)
WIDE = Example((Sample((3, 300), low=-90, high=90),), {"axis": 1}, gradient=False)


def forward(op_type: str, function: Callable[..., Array]) -> OpDef:
    return OpDef(
        op_type,
        infer_softmax,
        computed(function),
        gradient=softmax_gradient,
        work=streaming_work(20),
        examples=(
            *(Example((Sample(s, low=-3, high=3),), {"axis": axis}) for s, axis in SHAPES),
            WIDE,
        ),
        in_place=((0, 0),),
    )


def backward(
    op_type: str,
    function: Callable[..., Array],
    body: Callable[[OpCall], ir.Function],
    low: float,
    high: float,
) -> OpDef:
    """``low`` and ``high`` bound the samples of y."""
    return OpDef(
        op_type,
        infer_softmax_grad,
        computed(function),
        domain=COEXEC,
        not_differentiable="second derivatives are not supported",
        work=streaming_work(5),
        examples=tuple(
            Example((Sample(s), Sample(s, low=low, high=high)), {"axis": axis}, gradient=False)
            for s, axis in (*SHAPES, ((3, 300), 1))
        ),
        body=body,
        in_place=((0, 0), (0, 1)),
    )


OPS = (
    forward("Softmax", softmax),
    forward("LogSoftmax", log_softmax),
    OpDef(
        "Hardmax",
        infer_softmax,
        computed(hardmax),
        not_differentiable="piecewise constant: the derivative is zero almost everywhere",
        examples=tuple(
            Example((Sample(s, low=-3, high=3),), {"axis": axis}, gradient=False)
            for s, axis in SHAPES
        ),
    ),
    backward("SoftmaxGrad", softmax_grad, softmax_grad_body, 0.01, 0.5),
    backward("LogSoftmaxGrad", log_softmax_grad, log_softmax_grad_body, -4, -0.1),
)
