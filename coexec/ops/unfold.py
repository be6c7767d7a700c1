"""Col2Im: blocks of an image added up where they overlap, and Im2Col, which takes them out.

https://onnx.ai/onnx/operators/onnx__Col2Im.html; PyTorch's ``fold`` and ``unfold``. Each is the
other's gradient. Columns are (batch, channels * taps, positions), taps of a block and positions of
blocks in row-major order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.axes import known_ints
from coexec.ops.elementwise import is_float
from coexec.ops.opdef import COEXEC, Example, GradientScope, OpDef, Sample, Work
from coexec.ops.precision import widened

Shape = tuple[int, ...]
Place = tuple[Any, ...]
"""Slices of the last axes of an array."""


@dataclass(frozen=True)
class Blocks:
    """Images of ``sizes`` in ``batch`` x ``channels``; blocks stand at ``out`` positions."""

    batch: int
    channels: int
    sizes: Shape
    block: Shape
    strides: Shape
    dilations: Shape
    pads: Shape
    out: Shape

    @property
    def taps(self) -> int:
        return prod(self.block)

    @property
    def columns(self) -> Shape:
        return (self.batch, self.channels * self.taps, prod(self.out))

    @property
    def images(self) -> Shape:
        return (self.batch, self.channels, *self.sizes)

    @classmethod
    def of(cls, call: OpCall) -> Blocks:
        """Of Col2Im (columns, image shape, block shape) or Im2Col (images).

        Raises ``ValueError`` where operands and attributes do not fit.
        """
        if call.domain == COEXEC:
            batch, channels, *spatial = call.input(0).shape
            sizes = tuple(spatial)
            block = tuple(int(size) for size in call.attributes["block_shape"])
        else:
            sizes, block = known_ints(call, 1, "image_shape"), known_ints(call, 2, "block_shape")
            batch, channels = _columns(call, block), 0
        rank = len(sizes)
        strides, dilations = _each(call, "strides", 1, rank), _each(call, "dilations", 1, rank)
        pads = _each(call, "pads", 0, 2 * rank)
        if not rank or len(block) != rank or min((*sizes, *block, *strides, *dilations)) < 1:
            raise ValueError(f"{call.identifier}: blocks {block} of images {sizes}")
        reach = [d * (k - 1) + 1 for d, k in zip(dilations, block, strict=True)]
        out = tuple(
            (size + pads[i] + pads[rank + i] - reach[i]) // strides[i] + 1
            for i, size in enumerate(sizes)
        )
        if min(out) < 1:
            raise ValueError(f"{call.identifier}: blocks {block} do not fit into images {sizes}")
        if call.domain != COEXEC:
            channels = call.input(0).shape[1] // prod(block)
        found = cls(batch, channels, sizes, block, strides, dilations, pads, out)
        if call.domain != COEXEC and call.input(0).shape != found.columns:
            raise ValueError(f"Col2Im: columns {call.input(0)}, expected {found.columns}")
        return found

    def pieces(self) -> Iterator[tuple[int, Place, Place]]:
        """Each tap with the positions at which it is inside, and the elements it stands on."""
        for tap, place in enumerate(np.ndindex(*self.block)):
            of_blocks: list[Any] = [...]
            of_image: list[Any] = [...]
            for axis, at in enumerate(place):
                step, shift = self.strides[axis], at * self.dilations[axis] - self.pads[axis]
                first = max(0, -(shift // step))
                last = min(self.out[axis], (self.sizes[axis] - 1 - shift) // step + 1)
                last = max(first, last)
                of_blocks.append(slice(first, last))
                start = first * step + shift
                of_image.append(slice(start, start + (last - first) * step, step))
            yield tap, tuple(of_blocks), tuple(of_image)


def _columns(call: OpCall, block: Shape) -> int:
    kind = call.input(0)
    if kind.rank != 3 or not prod(block) or kind.shape[1] % prod(block):
        raise ValueError(f"Col2Im: columns {kind} for blocks {block}")
    return kind.shape[0]


def _each(call: OpCall, name: str, default: int, count: int) -> Shape:
    """An attribute with one number for each of ``count``."""
    given = call.attribute(name) or (default,) * count
    if len(given) != count:
        raise ValueError(f"{call.identifier}: {name} {given}, expected {count} numbers")
    return tuple(int(number) for number in given)


def infer_col2im(call: OpCall) -> Sequence[TensorType]:
    return (call.input(0).with_shape(Blocks.of(call).images),)


def infer_im2col(call: OpCall) -> Sequence[TensorType]:
    if call.input(0).rank < 3:
        raise ValueError(f"Im2Col: images {call.input(0)}")
    return (call.input(0).with_shape(Blocks.of(call).columns),)


@widened
def col2im(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """The sum over taps in their order."""
    b, columns = Blocks.of(call), np.asarray(operands[0])
    parts = columns.reshape(b.batch, b.channels, b.taps, *b.out)
    images = np.zeros(b.images, columns.dtype)
    for tap, of_blocks, of_image in b.pieces():
        images[of_image] += parts[:, :, tap][of_blocks]
    return (images,)


def im2col(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    b, images = Blocks.of(call), np.asarray(operands[0])
    parts = np.zeros((b.batch, b.channels, b.taps, *b.out), images.dtype)
    for tap, of_blocks, of_image in b.pieces():
        parts[:, :, tap][of_blocks] = images[of_image]
    return (parts.reshape(b.columns),)


def _kept(call: OpCall) -> dict[str, Any]:
    names = ("dilations", "pads", "strides")
    return {name: call.attributes[name] for name in names if name in call.attributes}


def col2im_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    """The blocks of the gradient."""
    block = {"block_shape": Blocks.of(g.call).block}
    return (g.op("Im2Col", [g.grad()], {**_kept(g.call), **block}, domain=COEXEC), None, None)


def im2col_gradient(g: GradientScope) -> Sequence[ir.Value | None]:
    b = Blocks.of(g.call)
    shapes = [g.constant(np.array(sizes, np.int64), "int64") for sizes in (b.sizes, b.block)]
    return (g.op("Col2Im", [g.grad(), *shapes], _kept(g.call)),)


def work(call: OpCall) -> Work:
    """An addition for each element of the columns."""
    moved = sum(t.nbytes for t in (*call.inputs, *call.outputs) if t is not None)
    b = Blocks.of(call)
    return Work(prod(b.columns) if is_float(call.input(0).dtype) else 0, moved)


@dataclass(frozen=True)
class _Case:
    images: Shape
    block: Shape
    attributes: dict[str, Any]

    def folded(self) -> Example:
        call = OpCall("Im2Col", (TensorType(self.images, np.dtype(np.float32)),), self._given())
        bare = OpCall("Im2Col", call.inputs, call.attributes, domain=COEXEC)
        shapes = [np.array(sizes, np.int64) for sizes in (self.images[2:], self.block)]
        return Example((Sample(Blocks.of(bare).columns), *shapes), self.attributes)

    def unfolded(self) -> Example:
        return Example((Sample(self.images),), self._given())

    def _given(self) -> dict[str, Any]:
        return {**self.attributes, "block_shape": self.block}


_CASES = (
    _Case((2, 3, 5, 7), (2, 3), {}),
    _Case((1, 2, 6, 6), (3, 3), {"pads": (1, 0, 1, 2), "strides": (2, 1)}),
    _Case((2, 1, 8, 9), (2, 2), {"dilations": (3, 2), "strides": (1, 3)}),
    _Case((2, 3, 19), (4,), {"strides": (4,), "pads": (1, 1)}),
    _Case((1, 2, 3, 4, 5), (2, 1, 3), {"pads": (1, 0, 2, 0, 0, 0)}),
)

OPS = (
    OpDef(
        "Col2Im",
        infer_col2im,
        col2im,
        gradient=col2im_gradient,
        work=work,
        value_inputs=(1, 2),
        examples=tuple(case.folded() for case in _CASES),
    ),
    OpDef(
        "Im2Col",
        infer_im2col,
        im2col,
        domain=COEXEC,
        gradient=im2col_gradient,
        work=work,
        examples=tuple(case.unfolded() for case in _CASES),
    ),
)
