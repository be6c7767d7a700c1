"""Linear algebra beyond products: Det."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.elementwise import is_float
from coexec.ops.opdef import Example, OpDef, Sample, Work
from coexec.ops.precision import widened


def infer_det(call: OpCall) -> Sequence[TensorType]:
    kind = call.input(0)
    if kind.rank < 2 or kind.shape[-1] != kind.shape[-2] or not is_float(kind.dtype):
        raise ValueError(f"Det of {kind}, which holds no square matrices")
    return (kind.with_shape(kind.shape[:-2]),)


@widened
def det(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    x = np.asarray(operands[0])
    return (np.asarray(np.linalg.det(x), x.dtype),)


def det_work(call: OpCall) -> Work:
    """An elimination: 2 n^3 / 3."""
    kind = call.input(0)
    size = kind.shape[-1]
    return Work(call.output(0).size * 2 * size**3 // 3, kind.nbytes + call.output(0).nbytes)


OPS = (
    OpDef(
        "Det",
        infer_det,
        det,
        not_differentiable="the inverse of a matrix, which it needs, is no operator of ONNX",
        work=det_work,
        examples=(Example((Sample((3, 3)),)), Example((Sample((2, 5, 4, 4)),))),
    ),
)
