"""Operators that accumulate along an axis: CumSum, CumProd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.axes import known_int, normalize_axis
from coexec.ops.opdef import COEXEC, Example, GradientScope, OpDef, Sample, Work


def scan_axis(call: OpCall) -> int:
    """The axis operand of a CumSum or CumProd, or the attribute of a coexec::CumProdGrad."""
    axis = call.attributes["axis"] if call.domain == COEXEC else known_int(call, 1, "axis")
    return normalize_axis(int(axis), call.input(0).rank)


def infer_scan(call: OpCall) -> Sequence[TensorType]:
    scan_axis(call)
    return (call.input(0),)


def _wide(data: Array) -> Array:
    """Half types accumulate in float32."""
    half = data.dtype.itemsize == 2 and data.dtype.kind not in "iu"
    return data.astype(np.float32) if half else data


def _lanes(call: OpCall, data: Array) -> Array:
    """``data`` with the axis in front and in the order of accumulation (a view)."""
    lanes = np.moveaxis(data, scan_axis(call), 0)
    return lanes[::-1] if call.attribute("reverse", 0) else lanes


def _scanned(
    call: OpCall, data: Array, accumulate: Callable[..., Array], neutral: int
) -> Sequence[Array]:
    result = np.empty_like(_wide(data))
    source, target = _lanes(call, _wide(data)), _lanes(call, result)
    if call.attribute("exclusive", 0):
        # The sum of all before: the first is neutral and the last element is never used.
        target[:1] = neutral
        target[1:] = accumulate(source[:-1], axis=0, dtype=result.dtype)
    else:
        target[...] = accumulate(source, axis=0, dtype=result.dtype)
    return (result.astype(data.dtype),)


def cum_sum(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return _scanned(call, operands[0], np.cumsum, 0)


def cum_prod(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return _scanned(call, operands[0], np.cumprod, 1)


def _flags(call: OpCall) -> dict[str, int]:
    return {name: int(call.attribute(name, 0)) for name in ("exclusive", "reverse")}


def cum_sum_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    """Every element feeds the sums behind it: the same sum from the other end."""
    flags = _flags(g.call)
    flags["reverse"] = 1 - flags["reverse"]
    return (g.op("CumSum", [g.grad(), g.value(1)], flags), None)


def cum_prod_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    attributes = {**_flags(g.call), "axis": scan_axis(g.call)}
    return (g.op("CumProdGrad", [g.value(0), g.grad()], attributes, domain=COEXEC), None)


def cum_prod_grad(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """d x[i] = (product before i) * s[i], with s[i] the weighted sum of products behind i.

    s[i] = dy[i] + x[i + 1] * s[i + 1] (exclusive: s[i] = dy[i + 1] + x[i + 1] * s[i + 1]):
    no division, so zeros among the factors are as good as any.
    """
    x, grad = (_wide(operand) for operand in operands)
    result = np.empty_like(x)
    factors, grads, target = (_lanes(call, a) for a in (x, grad, result))
    behind = np.zeros(factors.shape[1:], x.dtype)
    for i in range(len(factors) - 1, -1, -1):
        if not call.attribute("exclusive", 0):
            behind = behind + grads[i]
        target[i] = behind * np.prod(factors[:i], axis=0, dtype=x.dtype)
        behind = behind * factors[i]
        if call.attribute("exclusive", 0):
            behind = behind + grads[i]
    return (result.astype(operands[0].dtype),)


def scan_work(call: OpCall) -> Work:
    return Work(call.input(0).size, 2 * call.input(0).nbytes)


def scan_grad_work(call: OpCall) -> Work:
    return Work(4 * call.input(0).size, 3 * call.input(0).nbytes)


_FORMS: tuple[dict[str, int], ...] = (
    {},
    {"exclusive": 1},
    {"reverse": 1},
    {"exclusive": 1, "reverse": 1},
)
_SECOND = np.array(-1)

_SUM_EXAMPLES = (
    *(Example((Sample((4, 7)), _SECOND), form) for form in _FORMS),
    *(Example((Sample((3, 5, 2)), np.array(1)), form) for form in _FORMS),
    Example((Sample((6,)), np.array([0]))),
    Example((Sample((2, 3000), low=0.0), _SECOND), {"reverse": 1}, gradient=False),
    Example((Sample((3, 9), "int64", -9, 9), np.array(0)), gradient=False),
)
_PROD_EXAMPLES = (
    *(Example((Sample((4, 5)), _SECOND), form) for form in _FORMS),
    Example((Sample((3, 4, 2)), np.array(1))),
    Example((Sample((3, 5), "int32", -3, 4), np.array(0)), gradient=False),
)
_GRAD_EXAMPLES = tuple(
    Example((Sample((3, 4, 2)), Sample((3, 4, 2))), {"axis": 1, **form}) for form in _FORMS
)

OPS = (
    OpDef(
        "CumSum",
        infer_scan,
        cum_sum,
        gradient=cum_sum_gradient,
        work=scan_work,
        examples=_SUM_EXAMPLES,
        value_inputs=(1,),
    ),
    OpDef(
        "CumProd",
        infer_scan,
        cum_prod,
        gradient=cum_prod_gradient,
        work=scan_work,
        examples=_PROD_EXAMPLES,
        value_inputs=(1,),
    ),
    OpDef(
        "CumProdGrad",
        infer_scan,
        cum_prod_grad,
        domain=COEXEC,
        not_differentiable="second derivatives of CumProd are not needed",
        work=scan_grad_work,
        examples=_GRAD_EXAMPLES,
    ),
)
