"""Convolution in 1, 2 and 3 dimensions with the gradients of its input and its weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.conv_geometry import ConvGeometry
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import COEXEC, Example, GradientScope, OpDef, Sample, Work
from coexec.ops.precision import widened


def im2col(x: Array, g: ConvGeometry) -> Array:
    """Patches of ``x``: (batch, group, in_channels / group * taps, outputs)."""
    extent = [(o - 1) * s + r for o, s, r in zip(g.out_size, g.strides, g.reach, strict=True)]
    end = [e - n - b for e, n, b in zip(extent, g.in_size, g.pads_begin, strict=True)]
    kept: list[Any] = [slice(0, n + min(e, 0)) for n, e in zip(g.in_size, end, strict=True)]
    cropped = x[(..., *kept)]
    pads = [(0, 0), (0, 0), *((b, max(e, 0)) for b, e in zip(g.pads_begin, end, strict=True))]
    padded = np.pad(cropped, pads)
    steps = padded.strides[2:]
    patches = np.lib.stride_tricks.as_strided(
        padded,
        (g.batch, g.in_channels, *g.kernel, *g.out_size),
        (
            *padded.strides[:2],
            *(step * d for step, d in zip(steps, g.dilations, strict=True)),
            *(step * s for step, s in zip(steps, g.strides, strict=True)),
        ),
        writeable=False,
    )
    return np.reshape(patches, (g.batch, g.group, _depth(g), prod(g.out_size)))


def col2im(columns: Array, g: ConvGeometry) -> Array:
    """Sum patches (as of :func:`im2col`) back into a tensor of shape ``g.in_shape``."""
    extent = [
        max((o - 1) * s + r, b + n)
        for o, s, r, b, n in zip(
            g.out_size, g.strides, g.reach, g.pads_begin, g.in_size, strict=True
        )
    ]
    padded = np.zeros((g.batch, g.in_channels, *extent), columns.dtype)
    patches = columns.reshape(g.batch, g.in_channels, *g.kernel, *g.out_size)
    for tap in product(*(range(k) for k in g.kernel)):
        where: list[Any] = [
            slice(t * d, t * d + (o - 1) * s + 1, s)
            for t, d, o, s in zip(tap, g.dilations, g.out_size, g.strides, strict=True)
        ]
        picked: list[Any] = [slice(None), slice(None), *tap]
        padded[(..., *where)] += patches[tuple(picked)]
    inside: list[Any] = [slice(b, b + n) for b, n in zip(g.pads_begin, g.in_size, strict=True)]
    result: Array = padded[(..., *inside)]
    return result


def correlate(x: Array, w: Array, g: ConvGeometry) -> Array:
    """Y = Conv(X, W) without bias."""
    filters = w.reshape(g.group, g.out_channels // g.group, _depth(g))
    y: Array = np.matmul(filters, im2col(x, g))
    return y.reshape(g.out_shape)


def input_gradient(dy: Array, w: Array, g: ConvGeometry) -> Array:
    """dX of Y = Conv(X, W): also ConvTranspose without bias."""
    filters = w.reshape(g.group, g.out_channels // g.group, _depth(g)).swapaxes(1, 2)
    return col2im(np.matmul(filters, _grouped(dy, g)), g)


def weight_gradient(x: Array, dy: Array, g: ConvGeometry) -> Array:
    """dW of Y = Conv(X, W), batch element by batch element to bound the memory."""
    columns = im2col(x, g).swapaxes(2, 3)
    outputs = _grouped(dy, g)
    total = np.zeros((g.group, outputs.shape[2], columns.shape[3]), np.result_type(x, dy))
    for patch, image in zip(columns, outputs, strict=True):
        total += np.matmul(image, patch)
    return total.reshape(g.weight_shape)


def _depth(g: ConvGeometry) -> int:
    """Elements of one filter; -1 would not do in a reshape of empty tensors."""
    return g.in_channels // g.group * prod(g.kernel)


def _grouped(y: Array, g: ConvGeometry) -> Array:
    return y.reshape(g.batch, g.group, g.out_channels // g.group, prod(g.out_size))


def add_bias(y: Array, operands: Sequence[Any]) -> Array:
    """``y`` plus operand 2 per channel, if it is there."""
    if len(operands) < 3 or operands[2] is None:
        return y
    return np.asarray(y + operands[2].reshape(-1, *(1,) * (y.ndim - 2)))


def check_bias(call: OpCall, channels: int) -> None:
    """Raise ``ValueError`` unless operand 2 is absent or a vector with one value per channel."""
    if call.has_input(2) and call.input(2).shape != (channels,):
        raise ValueError(f"{call.identifier}: bias {call.input(2)} is not {channels} long")


def infer_conv(call: OpCall) -> Sequence[TensorType]:
    geometry = ConvGeometry.of(call)
    check_bias(call, geometry.out_channels)
    return (call.input(0).with_shape(geometry.out_shape),)


@widened
def conv(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    y = correlate(operands[0], operands[1], ConvGeometry.of(call))
    return (add_bias(y, operands),)


def conv_work(call: OpCall) -> Work:
    """Work of any of the four convolution operators."""
    moved = sum(t.nbytes for t in (*call.inputs, *call.outputs) if t is not None)
    return Work(ConvGeometry.of(call).flop, moved)


def attributes_of(g: ConvGeometry) -> dict[str, Any]:
    """Strides, dilations, group and non-negative explicit padding."""
    return {
        "strides": g.strides,
        "dilations": g.dilations,
        "group": g.group,
        "pads": (*g.pads_begin, *(max(e, 0) for e in g.pads_end)),
    }


def emit_conv(s: GradientScope, x: ir.Value, w: ir.Value, g: ConvGeometry) -> ir.Value:
    """Nodes for Y = Conv(X, W) with exactly ``g.out_size`` outputs.

    ConvTranspose with output_padding >= stride leaves more room than outputs: cut off.
    """
    attributes = attributes_of(g) | {"kernel_shape": g.kernel}
    y = s.op("Conv", [x, w], attributes)
    if s.type_of(y).shape[2:] == g.out_size:
        return y
    axes = np.arange(2, g.rank + 2)
    bounds = [np.zeros(g.rank), np.array(g.out_size), axes]
    return s.op("Slice", [y, *(s.constant(b.astype(np.int64), "int64") for b in bounds)])


def emit_input_grad(s: GradientScope, dy: ir.Value, w: ir.Value, g: ConvGeometry) -> ir.Value:
    attributes = attributes_of(g) | {"input_shape": g.in_shape}
    return s.op("ConvInputGrad", [dy, w], attributes, domain=COEXEC)


def emit_weight_grad(s: GradientScope, x: ir.Value, dy: ir.Value, g: ConvGeometry) -> ir.Value:
    attributes = attributes_of(g) | {"kernel_shape": g.kernel}
    return s.op("ConvWeightGrad", [x, dy], attributes, domain=COEXEC)


def emit_bias_grad(s: GradientScope) -> ir.Value | None:
    """Sum of dY over all axes but the channels, where the call has a bias."""
    if not s.call.has_input(2) or not s.wanted[2]:
        return None
    rank = s.call.output(0).rank
    axes = s.constant(np.array([0, *range(2, rank)], np.int64), "int64")
    return s.op("ReduceSum", [s.grad(), axes], {"keepdims": 0})


def conv_gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    g = ConvGeometry.of(s.call)
    x, w, dy = s.value(0), s.value(1), s.grad()
    dx = emit_input_grad(s, dy, w, g) if s.wanted[0] else None
    dw = emit_weight_grad(s, x, dy, g) if s.wanted[1] else None
    return (dx, dw, emit_bias_grad(s))[: len(s.inputs)]


def infer_input_grad(call: OpCall) -> Sequence[TensorType]:
    return (call.input(0).with_shape(ConvGeometry.of(call).in_shape),)


@widened
def conv_input_grad(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return (input_gradient(operands[0], operands[1], ConvGeometry.of(call)),)


def input_grad_gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    """dX is linear in dY and in W: what comes back is a convolution and a weight gradient."""
    g = ConvGeometry.of(s.call)
    dy, w, ddx = s.value(0), s.value(1), s.grad()
    return (
        emit_conv(s, ddx, w, g) if s.wanted[0] else None,
        emit_weight_grad(s, ddx, dy, g) if s.wanted[1] else None,
    )


def input_grad_body(call: OpCall) -> ir.Function | None:
    """ConvTranspose whose output_padding restores the rows that the strides skipped."""
    g = ConvGeometry.of(call)
    covered = [
        s * (o - 1) + r - b - e
        for s, o, r, b, e in zip(
            g.strides, g.out_size, g.reach, g.pads_begin, g.pads_end, strict=True
        )
    ]
    extra = tuple(n - c for n, c in zip(g.in_size, covered, strict=True))
    if min(extra) < 0 or any(x >= s for x, s in zip(extra, g.strides, strict=True)):
        return None
    b = FunctionBuilder(call)
    attributes = attributes_of(g) | {"kernel_shape": g.kernel, "output_padding": extra}
    return b.function([b.op("ConvTranspose", b.inputs, attributes)])


def infer_weight_grad(call: OpCall) -> Sequence[TensorType]:
    return (call.input(0).with_shape(ConvGeometry.of(call).weight_shape),)


@widened
def conv_weight_grad(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    return (weight_gradient(operands[0], operands[1], ConvGeometry.of(call)),)


def weight_grad_gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    g = ConvGeometry.of(s.call)
    x, dy, ddw = s.value(0), s.value(1), s.grad()
    return (
        emit_input_grad(s, dy, ddw, g) if s.wanted[0] else None,
        emit_conv(s, x, ddw, g) if s.wanted[1] else None,
    )


def weight_grad_body(call: OpCall) -> ir.Function | None:
    """A convolution whose batch is the input channels, summing over the images.

    Strides and dilations change roles; with groups the channels of one group are the batch and
    (group, image) the channels.
    """
    g = ConvGeometry.of(call)
    b = FunctionBuilder(call)
    inner = g.in_channels // g.group
    spatial = tuple(range(3, g.rank + 3))
    exact = {"allowzero": 1}  # an empty batch is a size, not a dimension to copy
    x = b.op("Reshape", [b.inputs[0], b.shape((g.batch, g.group, inner, *g.in_size))], exact)
    x = b.op("Transpose", [x], {"perm": (2, 1, 0, *spatial)})
    x = b.op("Reshape", [x, b.shape((inner, g.group * g.batch, *g.in_size))], exact)
    swap = (1, 0, *range(2, g.rank + 2))
    filters = b.op("Transpose", [b.inputs[1]], {"perm": swap})
    attributes = attributes_of(g) | {
        "strides": g.dilations,
        "dilations": g.strides,
        "kernel_shape": g.out_size,
    }
    dw = b.op("Conv", [x, filters], attributes)
    axes = range(2, g.rank + 2)
    dw = b.op("Slice", [dw, b.shape((0,) * g.rank), b.shape(g.kernel), b.shape(tuple(axes))])
    return b.function([b.op("Transpose", [dw], {"perm": swap})])


def _case(x: tuple[int, ...], w: tuple[int, ...], bias: bool = False, **attributes: Any) -> Example:
    operands = (Sample(x), Sample(w)) + ((Sample((w[0],)),) if bias else ())
    return Example(operands, attributes)


_CONV = (
    _case((2, 3, 7, 6), (4, 3, 3, 3), bias=True, pads=(1, 1, 1, 1)),
    _case((1, 2, 9, 8), (3, 2, 3, 2), strides=(2, 3), pads=(0, 1, 2, 0)),
    _case((2, 4, 7, 7), (6, 2, 3, 3), bias=True, group=2, dilations=(2, 1), pads=(2, 1, 2, 1)),
    _case((2, 5, 6, 6), (5, 1, 3, 3), group=5, auto_pad="SAME_UPPER", strides=(2, 2)),
    _case((1, 3, 5, 5), (2, 3, 2, 2), auto_pad="SAME_LOWER"),
    _case((1, 3, 5, 5), (2, 3, 3, 3), auto_pad="VALID"),
    _case((2, 6, 4, 4), (8, 6, 1, 1), bias=True),
    _case((0, 4, 5, 5), (6, 2, 3, 3), bias=True, group=2),
    _case((2, 6, 5, 5), (4, 6, 1, 1), strides=(2, 2)),
    _case((2, 3, 12), (4, 3, 3), bias=True, dilations=(3,), pads=(3, 3)),
    _case((1, 2, 1, 4, 5), (4, 1, 1, 3, 2), group=2, strides=(2, 1, 1), pads=(1, 0, 0, 0, 0, 0)),
    _case((1, 2, 4, 5, 6), (3, 2, 2, 3, 2), bias=True, strides=(1, 2, 1), pads=(1, 1, 0, 0, 1, 1)),
)


def _geometry(example: Example) -> ConvGeometry:
    kinds = [
        TensorType(o.shape, np.dtype(o.dtype)) for o in example.inputs if isinstance(o, Sample)
    ]
    return ConvGeometry.of(OpCall("Conv", tuple(kinds), example.attributes))


def _input_grad_case(example: Example) -> Example:
    g = _geometry(example)
    attributes = attributes_of(g) | {"input_shape": g.in_shape}
    return Example((Sample(g.out_shape), Sample(g.weight_shape)), attributes)


def _weight_grad_case(example: Example) -> Example:
    g = _geometry(example)
    attributes = attributes_of(g) | {"kernel_shape": g.kernel}
    return Example((Sample(g.in_shape), Sample(g.out_shape)), attributes)


_MANY_SMALL_PLANES = (
    _case((3, 20, 3, 3), (20, 1, 3, 3), bias=True, group=20, pads=(1, 1, 1, 1)),
    _case((2, 20, 5, 4), (20, 1, 3, 3), group=20, pads=(1, 1, 1, 1), strides=(2, 2)),
)


def _small(case: Callable[[Example], Example]) -> tuple[Example, ...]:
    """Depthwise convolutions of small planes as ``case`` makes them."""
    return tuple(replace(case(example), gradient=False) for example in _MANY_SMALL_PLANES)


OPS = (
    OpDef(
        "Conv",
        infer_conv,
        conv,
        gradient=conv_gradient,
        work=conv_work,
        examples=(*_CONV, *_small(replace)),
    ),
    OpDef(
        "ConvInputGrad",
        infer_input_grad,
        conv_input_grad,
        domain=COEXEC,
        gradient=input_grad_gradient,
        work=conv_work,
        body=input_grad_body,
        examples=(*map(_input_grad_case, _CONV), *_small(_input_grad_case)),
    ),
    OpDef(
        "ConvWeightGrad",
        infer_weight_grad,
        conv_weight_grad,
        domain=COEXEC,
        gradient=weight_grad_gradient,
        work=conv_work,
        body=weight_grad_body,
        examples=(*map(_weight_grad_case, _CONV), *_small(_weight_grad_case)),
    ),
)
