"""Sizes, strides and padding of a convolution: one description for all four operators.

Padding rules: https://onnx.ai/onnx/operators/onnx__Conv.html and onnx__ConvTranspose.html.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from coexec.core.types import OpCall, TensorType

Sizes = tuple[int, ...]


def same_padding(total: Sequence[int], auto_pad: str) -> tuple[Sizes, Sizes]:
    """Split the total padding of each axis; an odd element goes to the end for SAME_UPPER."""
    small = tuple(t // 2 for t in total)
    large = tuple(t - s for t, s in zip(total, small, strict=True))
    return (large, small) if auto_pad == "SAME_LOWER" else (small, large)


def spatial_attribute(call: OpCall, name: str, rank: int, default: int) -> Sizes:
    """An attribute with one integer per spatial axis."""
    value: Any = call.attribute(name)
    sizes = (default,) * rank if not value else tuple(int(v) for v in value)
    if len(sizes) != rank:
        raise ValueError(f"{call.identifier}: {name} {sizes} does not have {rank} entries")
    return sizes


def window_padding(
    call: OpCall, in_size: Sizes, reach: Sizes, strides: Sizes
) -> tuple[Sizes, Sizes]:
    """Padding before and after each spatial axis from ``auto_pad`` or ``pads``.

    ``reach`` is the dilated kernel: (kernel - 1) * dilation + 1.
    """
    rank = len(in_size)
    auto_pad = call.attribute("auto_pad", "NOTSET")
    if auto_pad == "VALID":
        return (0,) * rank, (0,) * rank
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        total = tuple(
            max((-(-size // stride) - 1) * stride + r - size, 0)
            for size, r, stride in zip(in_size, reach, strides, strict=True)
        )
        return same_padding(total, auto_pad)
    if auto_pad not in ("NOTSET", ""):
        raise ValueError(f"{call.identifier}: unknown auto_pad {auto_pad!r}")
    return explicit_pads(call, rank)


def explicit_pads(call: OpCall, rank: int) -> tuple[Sizes, Sizes]:
    """Begin and end padding from the attribute ``pads``."""
    pads = tuple(int(p) for p in call.attribute("pads") or (0,) * (2 * rank))
    if len(pads) != 2 * rank:
        raise ValueError(f"{call.identifier}: pads {pads} does not have {2 * rank} entries")
    return pads[:rank], pads[rank:]


@dataclass(frozen=True)
class ConvGeometry:
    """The forward convolution Y = Conv(X, W) that an operator computes or differentiates.

    ``X`` is (batch, in_channels, *in_size), ``W`` (out_channels, in_channels / group, *kernel),
    ``Y`` (batch, out_channels, *out_size). ConvTranspose and ConvInputGrad read ``Y`` and write
    ``X`` (ConvTranspose's weights already have the layout of ``W``); ConvWeightGrad reads both and
    writes ``W``. Element ``o`` of Y reads X at ``o * stride - pad_begin + k * dilation``, zero
    outside; the sizes decide, so kernels need no ``pads_end``, which may be negative
    (ConvTranspose with output_padding).
    """

    batch: int
    in_channels: int
    out_channels: int
    group: int
    in_size: Sizes
    out_size: Sizes
    kernel: Sizes
    strides: Sizes
    dilations: Sizes
    pads_begin: Sizes
    pads_end: Sizes

    @property
    def rank(self) -> int:
        """Number of spatial axes."""
        return len(self.kernel)

    @property
    def in_shape(self) -> Sizes:
        return (self.batch, self.in_channels, *self.in_size)

    @property
    def out_shape(self) -> Sizes:
        return (self.batch, self.out_channels, *self.out_size)

    @property
    def weight_shape(self) -> Sizes:
        return (self.out_channels, self.in_channels // self.group, *self.kernel)

    @property
    def reach(self) -> Sizes:
        """Extent of the dilated kernel."""
        return dilated(self.kernel, self.dilations)

    @property
    def flop(self) -> int:
        """Multiply-adds of the convolution, each counted 2 (padding not subtracted)."""
        taps = self.in_channels // self.group * prod(self.kernel)
        return 2 * self.batch * self.out_channels * prod(self.out_size) * taps

    @classmethod
    def of(cls, call: OpCall) -> ConvGeometry:
        """Geometry of Conv(Integer), ConvTranspose, coexec::ConvInputGrad or ::ConvWeightGrad.

        Raises ``ValueError`` where operands and attributes do not fit.
        """
        return _BUILDERS[call.op_type](call)


def dilated(kernel: Sizes, dilations: Sizes) -> Sizes:
    """Extent of a dilated kernel per axis."""
    return tuple((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))


def _spatial_rank(call: OpCall, kind: TensorType) -> int:
    if kind.rank < 3:
        raise ValueError(f"{call.identifier}: {kind} has no spatial axis")
    return kind.rank - 2


def _kernel(call: OpCall, weights: TensorType, rank: int) -> Sizes:
    if weights.rank != rank + 2:
        raise ValueError(f"{call.identifier}: weights {weights} need rank {rank + 2}")
    kernel = weights.shape[2:]
    named = call.attribute("kernel_shape")
    if named and tuple(named) != kernel:
        raise ValueError(f"{call.identifier}: kernel_shape {tuple(named)} is not {kernel}")
    return kernel


def _check_channels(call: OpCall, inner: int, outer: int, weights: TensorType, group: int) -> None:
    """``weights`` must be (outer, inner / group, ...)."""
    if group < 1 or inner % group or outer % group:
        raise ValueError(f"{call.identifier}: group {group} divides not {inner} and {outer}")
    if weights.shape[:2] != (outer, inner // group):
        raise ValueError(
            f"{call.identifier}: weights {weights} do not fit {inner} channels in {group} group(s)"
        )


def _forward(call: OpCall) -> ConvGeometry:
    x, w = call.input(0), call.input(1)
    rank = _spatial_rank(call, x)
    kernel = _kernel(call, w, rank)
    strides = spatial_attribute(call, "strides", rank, 1)
    dilations = spatial_attribute(call, "dilations", rank, 1)
    reach = dilated(kernel, dilations)
    in_size = x.shape[2:]
    begin, end = window_padding(call, in_size, reach, strides)
    out_size = tuple(
        (size + b + e - r) // stride + 1
        for size, b, e, r, stride in zip(in_size, begin, end, reach, strides, strict=True)
    )
    if min(out_size) < 1:
        raise ValueError(f"{call.identifier}: kernel {kernel} is larger than the input {x}")
    group = int(call.attribute("group", 1))
    _check_channels(call, x.shape[1], w.shape[0], w, group)
    return ConvGeometry(
        x.shape[0],
        x.shape[1],
        w.shape[0],
        group,
        in_size,
        out_size,
        kernel,
        strides,
        dilations,
        begin,
        end,
    )


def _transposed(call: OpCall) -> ConvGeometry:
    """ConvTranspose: the operand is Y, the result X of the convolution."""
    y, w = call.input(0), call.input(1)
    rank = _spatial_rank(call, y)
    kernel = _kernel(call, w, rank)
    strides = spatial_attribute(call, "strides", rank, 1)
    dilations = spatial_attribute(call, "dilations", rank, 1)
    out_size = y.shape[2:]
    in_size, begin, end = _transposed_sizes(call, out_size, dilated(kernel, dilations), strides)
    group = int(call.attribute("group", 1))
    in_channels = w.shape[1] * group
    _check_channels(call, in_channels, y.shape[1], w, group)
    return ConvGeometry(
        y.shape[0],
        in_channels,
        y.shape[1],
        group,
        in_size,
        out_size,
        kernel,
        strides,
        dilations,
        begin,
        end,
    )


def _transposed_sizes(
    call: OpCall, out_size: Sizes, reach: Sizes, strides: Sizes
) -> tuple[Sizes, Sizes, Sizes]:
    """Result size and padding of a ConvTranspose; output_padding is taken off the end padding."""
    rank = len(out_size)
    extra = spatial_attribute(call, "output_padding", rank, 0)
    auto_pad = call.attribute("auto_pad", "NOTSET")
    spread = tuple(
        stride * (size - 1) + r for stride, size, r in zip(strides, out_size, reach, strict=True)
    )
    wanted = call.attribute("output_shape")
    if wanted:
        target = tuple(int(v) for v in wanted)[-rank:]
    elif auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        target = tuple(size * stride for size, stride in zip(out_size, strides, strict=True))
    else:
        begin, end = ((0,) * rank,) * 2 if auto_pad == "VALID" else explicit_pads(call, rank)
        end = tuple(e - x for e, x in zip(end, extra, strict=True))
        sizes = tuple(s - b - e for s, b, e in zip(spread, begin, end, strict=True))
        if min(sizes) < 1:
            raise ValueError(f"{call.identifier}: padding {begin}, {end} leaves nothing")
        return sizes, begin, end
    total = [s + x - t for s, x, t in zip(spread, extra, target, strict=True)]
    split = "SAME_UPPER" if auto_pad == "SAME_UPPER" else "SAME_LOWER"
    begin, end = same_padding([max(t, 0) for t in total], split)
    end = tuple(e + min(t, 0) - x for e, t, x in zip(end, total, extra, strict=True))
    return target, begin, end


def _explicit(call: OpCall, x: Sizes, y: TensorType, weights: Sizes) -> ConvGeometry:
    rank = len(x) - 2
    kernel = tuple(weights[2:])
    strides = spatial_attribute(call, "strides", rank, 1)
    dilations = spatial_attribute(call, "dilations", rank, 1)
    begin, end = explicit_pads(call, rank)
    group = int(call.attribute("group", 1))
    if y.rank != rank + 2 or y.shape[0] != x[0]:
        raise ValueError(f"{call.identifier}: {y} is not the result of a convolution of {x}")
    _check_channels(call, x[1], y.shape[1], y.with_shape(weights), group)
    return ConvGeometry(
        x[0],
        x[1],
        y.shape[1],
        group,
        tuple(x[2:]),
        y.shape[2:],
        kernel,
        strides,
        dilations,
        begin,
        end,
    )


def _input_grad(call: OpCall) -> ConvGeometry:
    shape = tuple(int(v) for v in call.attributes["input_shape"])
    return _explicit(call, shape, call.input(0), call.input(1).shape)


def _weight_grad(call: OpCall) -> ConvGeometry:
    x, y = call.input(0), call.input(1)
    group = int(call.attribute("group", 1))
    kernel = tuple(int(v) for v in call.attributes["kernel_shape"])
    return _explicit(call, x.shape, y, (y.shape[1], x.shape[1] // group, *kernel))


_BUILDERS = {
    "Conv": _forward,
    "ConvInteger": _forward,
    "ConvTranspose": _transposed,
    "ConvInputGrad": _input_grad,
    "ConvWeightGrad": _weight_grad,
}
