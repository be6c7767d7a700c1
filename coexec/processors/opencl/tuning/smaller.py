"""A call like another one with less work: what the naive variant can be afforded on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from coexec.core.types import OpCall, TensorType
from coexec.ops.table import OPERATORS
from coexec.processors.opencl.tuning.key import CONVOLUTIONS

ROWS = 16
"""Rows of the left matrix that are kept of a product."""

BATCHED = {"coexec::ConvWeightGrad": (0, 1)}
"""Operands with a batch axis of a convolution, where it is not the first alone."""


def smaller(call: OpCall) -> OpCall | None:
    """One image of a convolution, a few rows of a matrix product; ``None`` for other calls."""
    if call.identifier in CONVOLUTIONS:
        return _one_image(call)
    if call.identifier in ("Gemm", "MatMul", "coexec::TransposedMatMul"):
        return _few_rows(call)
    return None


def _one_image(call: OpCall) -> OpCall | None:
    inputs = list(call.inputs)
    for index in BATCHED.get(call.identifier, (0,)):
        inputs[index] = _resized(call.input(index), 0, 1)
    attributes: dict[str, Any] = dict(call.attributes)
    if "input_shape" in attributes:
        attributes["input_shape"] = (1, *tuple(attributes["input_shape"])[1:])
    return _typed(call, inputs, attributes) if call.input(0).shape[0] > 1 else None


def _few_rows(call: OpCall) -> OpCall | None:
    a = call.input(0)
    axis = a.rank - (1 if call.attribute("transA", 0) else 2)
    if axis < 0 or a.shape[axis] <= ROWS:
        return None
    rows = a.shape[axis]
    inputs = list(call.inputs)
    inputs[0] = _resized(a, axis, ROWS)
    if call.has_input(2):
        c = call.input(2)
        if c.rank == 2 and c.shape[0] == rows:
            inputs[2] = _resized(c, 0, ROWS)
    return _typed(call, inputs, dict(call.attributes))


def _resized(kind: TensorType, axis: int, size: int) -> TensorType:
    return kind.with_shape((*kind.shape[:axis], size, *kind.shape[axis + 1 :]))


def _typed(call: OpCall, inputs: list[TensorType | None], attributes: dict[str, Any]) -> OpCall:
    """Constants stay with the operands that kept their shape."""
    constants = {i: v for i, v in call.constants.items() if inputs[i] == call.inputs[i]}
    bare = replace(
        call, inputs=tuple(inputs), attributes=attributes, outputs=(), constants=constants
    )
    return OPERATORS[call.identifier].typed(bare)
