"""DeformConv: a convolution of planes whose taps stand where a tensor of offsets moves them.

https://onnx.ai/onnx/operators/onnx__DeformConv.html (Zhu et al., "Deformable ConvNets v2", 2019).
The body reads all taps by GridSample, multiplies them by the mask and leaves a matrix product; its
gradients are those of these operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.conv_geometry import Sizes, explicit_pads, spatial_attribute
from coexec.ops.elementwise import is_float
from coexec.ops.function_builder import FunctionBuilder
from coexec.ops.opdef import Example, OpDef, Sample, Work
from coexec.ops.precision import HALVES, widened

PLANE = 2


@dataclass(frozen=True)
class Deformed:
    """Y (batch, filters, *out) of X (batch, channels, *sizes) by ``groups`` of channels.

    Each of ``shifts`` groups of channels has offsets of its own. Tap k of a position reads X at
    position * stride - pad + k * dilation + offset.
    """

    batch: int
    channels: int
    filters: int
    sizes: Sizes
    kernel: Sizes
    out: Sizes
    groups: int
    shifts: int
    strides: Sizes
    dilations: Sizes
    pads: Sizes

    @property
    def taps(self) -> int:
        return prod(self.kernel)

    @property
    def positions(self) -> int:
        return prod(self.out)

    @classmethod
    def of(cls, call: OpCall) -> Deformed:
        """Geometry of a call; ``ValueError`` where operands do not fit."""
        x, w, offset = (call.input(i) for i in range(3))
        if x.rank != PLANE + 2 or w.rank != PLANE + 2 or offset.rank != PLANE + 2:
            raise ValueError(f"DeformConv of {x} by {w}, {offset}: only planes are supported")
        if not is_float(x.dtype):
            raise ValueError(f"DeformConv: needs floating-point operands, got {x}")
        groups, shifts = int(call.attribute("group", 1)), int(call.attribute("offset_group", 1))
        batch, channels, *sizes = x.shape
        if groups < 1 or shifts < 1 or channels % shifts or channels != w.shape[1] * groups:
            raise ValueError(f"DeformConv of {x} by {w}: {groups} groups, {shifts} of offsets")
        kernel = spatial_attribute(call, "kernel_shape", PLANE, 0)
        if any(kernel) and kernel != w.shape[2:]:
            raise ValueError(f"DeformConv: kernel_shape {kernel} of {w}")
        strides = spatial_attribute(call, "strides", PLANE, 1)
        dilations = spatial_attribute(call, "dilations", PLANE, 1)
        begin, end = explicit_pads(call, PLANE)
        out = tuple(
            (sizes[i] + begin[i] + end[i] - dilations[i] * (w.shape[2 + i] - 1) - 1) // strides[i]
            + 1
            for i in range(PLANE)
        )
        found = cls(
            *(batch, channels, w.shape[0], tuple(sizes), w.shape[2:], out, groups, shifts),
            *(strides, dilations, begin),
        )
        found._check(call)
        return found

    def _check(self, call: OpCall) -> None:
        offset = (self.batch, 2 * self.shifts * self.taps, *self.out)
        mask = (self.batch, self.shifts * self.taps, *self.out)
        for index, shape in ((2, offset), (3, (self.filters,)), (4, mask)):
            if call.has_input(index) and call.input(index).shape != shape:
                raise ValueError(f"DeformConv: input {index} {call.input(index)}, expected {shape}")
        if self.filters % self.groups:
            raise ValueError(f"DeformConv: {self.filters} filters in {self.groups} groups")

    def places(self) -> Array:
        """Where taps stand without offsets: (2, taps, *out), the row first."""
        taps = np.indices(self.kernel).reshape(2, -1, 1, 1)
        at = np.indices(self.out).reshape(2, 1, *self.out)
        step, dilation, pad = (
            np.reshape(each, (2, 1, 1, 1)) for each in (self.strides, self.dilations, self.pads)
        )
        return np.asarray(at * step - pad + taps * dilation)


def infer(call: OpCall) -> Sequence[TensorType]:
    d = Deformed.of(call)
    return (call.input(0).with_shape((d.batch, d.filters, *d.out)),)


@widened
def deform_conv(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Bilinear sums of four elements, zero outside, then a product for each group."""
    d = Deformed.of(call)
    x, w, offset = (np.asarray(operand) for operand in operands[:3])
    shifted = offset.reshape(d.batch, d.shifts, d.taps, 2, *d.out).swapaxes(2, 3)
    rows, columns = np.moveaxis(shifted + d.places(), 2, 0)  # (batch, shifts, taps, *out)
    images = x.reshape(d.batch, d.shifts, d.channels // d.shifts, -1)
    read = np.zeros((*images.shape[:3], d.taps * d.positions), x.dtype)
    for down, across in ((0, 0), (0, 1), (1, 0), (1, 1)):
        r, c = np.floor(rows) + down, np.floor(columns) + across
        weight = (1 - np.abs(rows - r)) * (1 - np.abs(columns - c))
        weight = weight * ((r >= 0) & (r < d.sizes[0]) & (c >= 0) & (c < d.sizes[1]))
        flat = np.clip(r, 0, d.sizes[0] - 1) * d.sizes[1] + np.clip(c, 0, d.sizes[1] - 1)
        flat = flat.astype(np.int64).reshape(d.batch, d.shifts, 1, -1)
        read += np.take_along_axis(images, flat, 3) * weight.reshape(flat.shape)
    if call.has_input(4):
        read *= np.asarray(operands[4]).reshape(d.batch, d.shifts, 1, -1)
    panels = read.reshape(d.batch, d.groups, -1, d.positions)
    y = np.matmul(w.reshape(1, d.groups, d.filters // d.groups, -1), panels)
    y = y.reshape(d.batch, d.filters, *d.out)
    bias = np.asarray(operands[3]).reshape(-1, 1, 1) if call.has_input(3) else 0
    return (np.asarray(y + bias).astype(x.dtype, copy=False),)


def _grid(b: FunctionBuilder, d: Deformed) -> ir.Value:
    """Places of all taps as GridSample has them: (batch * shifts, taps * rows, columns, 2)."""
    dtype = b.call.input(2).dtype
    offset = b.op("Reshape", [b.inputs[2], b.shape([d.batch * d.shifts, d.taps, 2, *d.out])])
    if dtype.name in HALVES:  # which do not tell one place of a large image from the next
        dtype = np.dtype(np.float32)
        offset = b.op("Cast", [offset], {"to": int(ir.DataType.FLOAT)})
    turned = b.op("Gather", [offset, b.shape([1, 0])], {"axis": 2})
    last = b.op("Transpose", [turned], {"perm": (0, 1, 3, 4, 2)})
    scale = 2 / np.array(d.sizes[::-1])
    base = np.moveaxis(d.places()[::-1], 0, -1) * scale + scale / 2 - 1
    moved = b.op("Mul", [last, b.constant(scale, dtype)])
    grid = b.op("Add", [moved, b.constant(base, dtype)])
    shape = [d.batch * d.shifts, d.taps * d.out[0], d.out[1], 2]
    return b.op("Reshape", [grid, b.shape(shape)])


def body(call: OpCall) -> ir.Function | None:
    b, d = FunctionBuilder(call), Deformed.of(call)
    if not prod((d.batch, d.channels, *d.sizes, d.positions)):
        return None
    slices = d.batch * d.shifts
    images = b.op("Reshape", [b.inputs[0], b.shape([slices, d.channels // d.shifts, *d.sizes])])
    read = b.op("GridSample", [images, _grid(b, d)], {"mode": "linear"})
    if call.has_input(4):
        shape = b.shape([slices, 1, d.taps * d.out[0], d.out[1]])
        read = b.op("Mul", [read, b.op("Reshape", [b.inputs[4], shape])])
    rows = d.channels // d.groups * d.taps
    panels = b.op("Reshape", [read, b.shape([d.batch, d.groups, rows, d.positions])])
    filters = b.shape([1, d.groups, d.filters // d.groups, rows])
    y = b.op("MatMul", [b.op("Reshape", [b.inputs[1], filters]), panels])
    y = b.op("Reshape", [y, b.shape([d.batch, d.filters, *d.out])])
    if call.has_input(3):
        y = b.op("Add", [y, b.op("Reshape", [b.inputs[3], b.shape([d.filters, 1, 1])])])
    return b.function([y])


def work(call: OpCall) -> Work:
    """The product, and four multiply-adds for each element that it reads."""
    d = Deformed.of(call)
    moved = sum(t.nbytes for t in (*call.inputs, *call.outputs) if t is not None)
    read = d.batch * d.channels * d.taps * d.positions
    return Work(read * (2 * d.filters // d.groups + 8), moved)


def _case(
    x: Sizes, w: Sizes, out: Sizes, *, bias: bool = False, mask: bool = False, **attributes: Any
) -> Example:
    taps = w[2] * w[3] * attributes.get("offset_group", 1)
    operands = [Sample(x), Sample(w), Sample((x[0], 2 * taps, *out), low=-1.6, high=1.6)]
    more = [Sample(w[:1]) if bias else None]
    more += [Sample((x[0], taps, *out), low=0.0)] if mask else []
    return Example((*operands, *more), attributes)


OPS = (
    OpDef(
        "DeformConv",
        infer,
        deform_conv,
        not_differentiable="training puts its body in its place, which has a gradient",
        work=work,
        body=body,
        examples=(
            _case((1, 2, 5, 6), (3, 2, 2, 3), (4, 4), bias=True),
            _case((2, 4, 4, 5), (4, 2, 3, 3), (4, 5), group=2, pads=(1, 1, 1, 1), mask=True),
            _case(
                *((1, 4, 7, 6), (2, 4, 2, 2), (3, 2)),
                offset_group=2,
                strides=(2, 3),
                dilations=(2, 1),
                bias=True,
                mask=True,
            ),
        ),
    ),
)
