"""Transposed convolution: the input gradient of a convolution as an operator of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.conv import (
    add_bias,
    check_bias,
    conv_work,
    emit_bias_grad,
    emit_conv,
    emit_weight_grad,
    input_gradient,
)
from coexec.ops.conv_geometry import ConvGeometry
from coexec.ops.opdef import Example, GradientScope, OpDef, Sample
from coexec.ops.precision import widened


def infer_conv_transpose(call: OpCall) -> Sequence[TensorType]:
    geometry = ConvGeometry.of(call)
    check_bias(call, geometry.in_channels)
    return (call.input(0).with_shape(geometry.in_shape),)


@widened
def conv_transpose(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    y = input_gradient(operands[0], operands[1], ConvGeometry.of(call))
    return (add_bias(y, operands),)


def conv_transpose_gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    """The operand plays Y of the convolution, so its gradient is the convolution itself."""
    g = ConvGeometry.of(s.call)
    x, w, dy = s.value(0), s.value(1), s.grad()
    dx = emit_conv(s, dy, w, g) if s.wanted[0] else None
    dw = emit_weight_grad(s, dy, x, g) if s.wanted[1] else None
    return (dx, dw, emit_bias_grad(s))[: len(s.inputs)]


def _case(x: tuple[int, ...], w: tuple[int, ...], bias: bool = False, **attributes: Any) -> Example:
    channels = w[1] * attributes.get("group", 1)
    operands = (Sample(x), Sample(w)) + ((Sample((channels,)),) if bias else ())
    return Example(operands, attributes)


OPS = (
    OpDef(
        "ConvTranspose",
        infer_conv_transpose,
        conv_transpose,
        gradient=conv_transpose_gradient,
        work=conv_work,
        examples=(
            _case((2, 3, 4, 5), (3, 2, 3, 3), bias=True),
            _case((1, 3, 4, 4), (3, 2, 3, 2), strides=(2, 3), pads=(1, 0, 0, 1)),
            _case((1, 2, 3, 3), (2, 3, 3, 3), strides=(3, 2), output_padding=(2, 1), bias=True),
            _case((1, 2, 3, 3), (2, 1, 3, 3), strides=(3, 2), output_shape=(10, 8)),
            _case((1, 2, 4, 3), (2, 2, 3, 3), strides=(2, 2), auto_pad="SAME_UPPER"),
            _case((1, 2, 4, 3), (2, 2, 4, 4), strides=(2, 3), auto_pad="SAME_LOWER"),
            _case((2, 4, 3, 3), (4, 3, 2, 3), group=2, dilations=(2, 2), output_padding=(1, 1)),
            _case((2, 3, 3, 4), (3, 1, 3, 3), strides=(2, 2), group=3, bias=True),
            _case((2, 20, 3, 4), (20, 1, 3, 3), pads=(1, 1, 1, 1), group=20, bias=True),
            _case((2, 3, 6), (3, 4, 3), strides=(2,), pads=(1, 1), bias=True),
            _case((1, 2, 2, 3, 3), (2, 2, 2, 2, 3), strides=(2, 1, 2), pads=(0, 1, 0, 1, 0, 1)),
        ),
    ),
)
