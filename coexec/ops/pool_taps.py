"""Maximum pooling that notes in a byte which element of each window it took."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.compressed import NO_GRADIENT
from coexec.ops.opdef import COEXEC, Example, OpDef, Sample, Work
from coexec.ops.pool import maximum_taps, window_work
from coexec.ops.pool_geometry import PoolGeometry
from coexec.ops.precision import widened

UINT8 = np.dtype(np.uint8)
NONE = 255
"""Instead of a tap: no gradient passes through this window."""


def passes_positive(call: OpCall) -> bool:
    """Whether windows whose maximum is not above 0 pass no gradient (a Relu stands in front)."""
    return bool(call.attribute("positive", 0))


def infer_taps(call: OpCall) -> Sequence[TensorType]:
    g = PoolGeometry.of(call)
    if g.taps > NONE:
        raise ValueError(f"{call.identifier}: windows of {g.taps} elements, at most {NONE}")
    y = call.input(0).with_shape(g.out_shape)
    return y, TensorType(y.shape, UINT8)


def max_pool_taps(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Maxima as of MaxPool, and the row-major number of the first element that is the largest."""
    best, taps = maximum_taps(np.asarray(operands[0]), PoolGeometry.of(call))
    passes = taps >= 0
    if passes_positive(call):
        passes &= best > 0
    return best, np.where(passes, taps, NONE).astype(np.uint8)


def _grad_geometry(call: OpCall) -> PoolGeometry:
    shape = call.attribute("input_shape")
    if shape is None:
        raise ValueError(f"{call.identifier}: attribute input_shape is missing")
    return PoolGeometry.of(call, tuple(int(n) for n in shape))


def infer_taps_grad(call: OpCall) -> Sequence[TensorType]:
    g = _grad_geometry(call)
    if call.input(0) != TensorType(g.out_shape, UINT8):
        raise ValueError(f"{call.identifier}: taps {call.input(0)} are not uint8{g.out_shape}")
    if call.input(1).shape != g.out_shape:
        raise ValueError(f"{call.identifier}: dY {call.input(1)} is not {g.out_shape}")
    return (call.input(1).with_shape(g.in_shape),)


@widened
def max_pool_taps_grad(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """dY at the element that each window took, summed where windows overlap."""
    taps, dy = operands
    g = _grad_geometry(call)
    dx = np.zeros(g.in_shape, dy.dtype)
    for number, outputs, inputs in g.reads():
        dx[inputs] += np.where(taps[outputs] == number, dy[outputs], 0)
    return (dx,)


def taps_grad_work(call: OpCall) -> Work:
    """One comparison per tap of each window."""
    g = _grad_geometry(call)
    moved = sum(t.nbytes for t in (*call.inputs, *call.outputs) if t is not None)
    return Work(g.taps * prod(g.out_shape), moved)


_WINDOWS: tuple[tuple[tuple[int, ...], dict[str, Any]], ...] = (
    ((2, 3, 6, 8), {"kernel_shape": (2, 2), "strides": (2, 2)}),
    ((1, 2, 5, 19), {"kernel_shape": (2, 2), "strides": (2, 2)}),
    ((1, 2, 7, 7), {"kernel_shape": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)}),
    ((1, 3, 6, 6), {"kernel_shape": (3, 3), "strides": (2, 2), "ceil_mode": 1}),
    ((1, 2, 8, 7), {"kernel_shape": (2, 3), "dilations": (3, 2)}),
    ((2, 3, 11), {"kernel_shape": (3,), "strides": (2,), "pads": (1, 1)}),
    (
        (1, 2, 4, 5, 6),
        {"kernel_shape": (2, 3, 2), "strides": (2, 1, 2), "pads": (0, 1, 0, 0, 1, 0)},
    ),
)


def _grad_example(shape: tuple[int, ...], window: dict[str, Any]) -> Example:
    call = OpCall("MaxPool", (TensorType(shape, np.dtype(np.float32)),), window)
    out = PoolGeometry.of(call).out_shape
    operands = (Sample(out, "uint8", 0, prod(window["kernel_shape"])), Sample(out))
    return Example(operands, {**window, "input_shape": shape}, gradient=False)


OPS = (
    OpDef(
        "MaxPoolTaps",
        infer_taps,
        max_pool_taps,
        domain=COEXEC,
        not_differentiable=NO_GRADIENT,
        work=window_work,
        examples=(
            *(Example((Sample(s),), w, 2, gradient=False) for s, w in _WINDOWS),
            *(
                Example((Sample(s, low=-2),), {**w, "positive": 1}, 2, gradient=False)
                for s, w in _WINDOWS[:3]
            ),
        ),
    ),
    OpDef(
        "MaxPoolTapsGrad",
        infer_taps_grad,
        max_pool_taps_grad,
        domain=COEXEC,
        not_differentiable=NO_GRADIENT,
        work=taps_grad_work,
        examples=tuple(_grad_example(*window) for window in _WINDOWS),
    ),
)
