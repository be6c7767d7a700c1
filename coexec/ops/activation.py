"""Activations: pointwise non-linearities of neural networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.opdef import Example, GradientScope, OpDef, Sample


def infer_same(call: OpCall) -> Sequence[TensorType]:
    """Output like input 0."""
    return (call.input(0),)


def relu(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return (np.maximum(operands[0], 0),)


def relu_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    y = g.outputs[0]
    zero = g.constant(0, g.type_of(y).dtype)
    return (g.op("Where", [g.op("Greater", [y, zero]), g.grad(), zero]),)


OPS = (
    OpDef(
        "Relu",
        infer_same,
        relu,
        gradient=relu_gradient,
        examples=(
            Example((Sample((3, 5)),)),
            Example((Sample((2, 3, 4, 5)),)),
            Example((Sample(()),)),
        ),
        in_place=((0, 0),),
    ),
)
