"""Convolution and its input's gradient as blocked products (see packed.cl)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import gcd, prod

from coexec.core.types import OpCall
from coexec.processors.opencl.family import inp, out
from coexec.processors.opencl.kernels.packed import BlockedProduct
from coexec.processors.opencl.kernels.packed_operands import (
    ONES,
    ZEROS,
    Batch,
    Bias,
    LeftSource,
    Result,
    RightSource,
)
from coexec.processors.opencl.kernels.window import Window


def forward_product(call: OpCall, w: Window) -> BlockedProduct:
    """Y = W * im2col(X): rows are output channels, columns output positions of all images."""
    w = flattened(w)
    _, k1, k2 = w.kernel
    return BlockedProduct(
        dtype=call.output(0).dtype,
        rows=w.outer,
        channels=w.inner,
        taps=w.kernel,
        columns=w.batch * w.pixels,
        left=LeftSource(
            inp(1),
            base=0,
            batch=w.outer * w.inner * w.taps,
            row=w.inner * w.taps,
            channel=w.taps,
            taps=(k1 * k2, k2, 1),
            count=w.groups,
        ),
        right=RightSource(
            inp(0),
            call.input(0).size,
            w.in_channels * w.in_pixels,
            w.in_pixels,
            w.in_size,
            w.strides,
            w.pads,
            w.dilations,
        ),
        result=Result(out(0), w.pixels, w.out_channels * w.pixels, w.out_size, w.out_size[1:]),
        bias=Bias(inp(2), 1, 0) if call.has_input(2) else None,
        batch=_groups(w, w.inner * w.in_pixels, w.outer * w.pixels, w.outer),
        known=call.constant(1) is not None,
    )


def flattened(w: Window) -> Window:
    """A convolution that reads where it writes, on one axis: its positions are runs of memory."""
    line = (1, 1, w.pixels)
    return replace(w, in_size=line, out_size=line) if w.pointwise else w


def input_products(call: OpCall, w: Window) -> Iterator[BlockedProduct]:
    """X from Y, one product per phase of the stride.

    Positions of X that are congruent modulo the stride read the same taps, so that each phase is a
    convolution of Y with stride 1 and a subset of the (reversed) taps: nothing is multiplied by
    inserted zeros. A phase without taps only writes the bias or zeros.
    """
    w = flattened(w)
    axes = [
        stride_phases(*numbers)
        for numbers in zip(w.in_size, w.kernel, w.strides, w.pads, w.dilations, strict=True)
    ]
    for axis_0, axis_1, axis_2 in product(*axes):
        yield _phase_product(call, w, (axis_0, axis_1, axis_2))


@dataclass(frozen=True)
class Phase:
    """Positions ``first, first + stride, ...`` (``count``) of an axis and the taps they read.

    Position ``i`` reads Y at ``i - pad + j * dilation`` through tap ``tap + j * step``.
    """

    first: int
    count: int
    tap: int
    step: int
    taps: int
    pad: int
    dilation: int


def stride_phases(size: int, kernel: int, stride: int, pad: int, dilation: int) -> list[Phase]:
    """The phases of an axis of X; one whose positions no tap reaches has ``taps`` 0."""
    step = stride // gcd(stride, dilation)
    phases = []
    for first in range(min(stride, size)):
        count = -(-(size - first) // stride)
        tap = next((t for t in range(kernel) if (first + pad - t * dilation) % stride == 0), kernel)
        taps = -(-(kernel - tap) // step)
        offset = (first + pad - tap * dilation) // stride
        phases.append(Phase(first, count, tap, step, taps, -offset, -(step * dilation // stride)))
    return phases


def phase_count(w: Window) -> int:
    """Number of products that :func:`input_products` yields."""
    return prod(min(stride, size) for stride, size in zip(w.strides, w.in_size, strict=True))


def _phase_product(call: OpCall, w: Window, phases: tuple[Phase, Phase, Phase]) -> BlockedProduct:
    a, b, c = phases
    empty = min(a.taps, b.taps, c.taps) == 0
    _, k1, k2 = w.kernel
    sizes = (a.count, b.count, c.count)
    return BlockedProduct(
        dtype=call.output(0).dtype,
        rows=w.inner,
        channels=0 if empty else w.outer,
        taps=ONES if empty else (a.taps, b.taps, c.taps),
        columns=w.batch * prod(sizes),
        left=LeftSource(
            inp(1),
            base=0 if empty else (a.tap * k1 + b.tap) * k2 + c.tap,
            batch=w.outer * w.inner * w.taps,
            row=w.taps,
            channel=w.inner * w.taps,
            taps=(a.step * k1 * k2, b.step * k2, c.step),
            count=w.groups,
        ),
        right=RightSource(
            inp(0),
            call.input(0).size,
            w.out_channels * w.pixels,
            w.pixels,
            w.out_size,
            ONES,
            ZEROS if empty else (a.pad, b.pad, c.pad),
            ONES if empty else (a.dilation, b.dilation, c.dilation),
        ),
        result=Result(
            out(0),
            w.in_pixels,
            w.in_channels * w.in_pixels,
            sizes,
            w.in_size[1:],
            w.strides,
            (a.first, b.first, c.first),
        ),
        bias=Bias(inp(2), 1, 0) if call.has_input(2) else None,
        batch=_groups(w, w.outer * w.pixels, w.inner * w.in_pixels, w.inner),
    )


def _groups(w: Window, x: int, y: int, bias: int) -> Batch:
    """Groups as the inner batch level with the elements between two groups of each operand."""
    return Batch(1, w.groups, (0, 1), (0, x), y, bias)
