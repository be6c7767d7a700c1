"""Windows of a pooling operator: sizes, padding, and which elements each tap reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import numpy as np

from coexec.core.types import Array, OpCall
from coexec.ops.conv_geometry import Sizes, dilated, spatial_attribute, window_padding

Index = tuple[Any, ...]


@dataclass(frozen=True)
class PoolGeometry:
    """Windows over X (batch, channels, *in_size) that give Y (batch, channels, *out_size).

    Tap ``k`` of output ``o`` reads X at ``o * stride - pad_begin + k * dilation``. Rules:
    https://onnx.ai/onnx/operators/onnx__MaxPool.html.
    """

    batch: int
    channels: int
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
        return len(self.in_size)

    @property
    def in_shape(self) -> Sizes:
        return (self.batch, self.channels, *self.in_size)

    @property
    def out_shape(self) -> Sizes:
        return (self.batch, self.channels, *self.out_size)

    @property
    def taps(self) -> int:
        """Elements of a full window."""
        return prod(self.kernel)

    @classmethod
    def of(cls, call: OpCall, shape: Sizes | None = None) -> PoolGeometry:
        """Geometry of a pooling call; ``shape`` is X's where that is not input 0.

        Raises ``ValueError`` where the attributes do not fit.
        """
        x = call.input(0).shape if shape is None else shape
        rank = len(x) - 2
        if rank < 1:
            raise ValueError(f"{call.identifier}: shape {x} has no spatial axis")
        if not call.attribute("kernel_shape"):
            raise ValueError(f"{call.identifier}: the attribute kernel_shape is missing")
        kernel = spatial_attribute(call, "kernel_shape", rank, 1)
        strides = spatial_attribute(call, "strides", rank, 1)
        dilations = spatial_attribute(call, "dilations", rank, 1)
        reach = dilated(kernel, dilations)
        begin, end = window_padding(call, x[2:], reach, strides)
        ceil = bool(call.attribute("ceil_mode", 0)) and call.attribute("auto_pad") in (
            None,
            "",
            "NOTSET",
        )
        out = tuple(
            _windows(n, b, e, r, s, ceil)
            for n, b, e, r, s in zip(x[2:], begin, end, reach, strides, strict=True)
        )
        if min(out) < 1:
            raise ValueError(f"{call.identifier}: window {kernel} is larger than {x}")
        return cls(x[0], x[1], x[2:], out, kernel, strides, dilations, begin, end)

    def reads(self) -> Iterator[tuple[int, Index, Index]]:
        """For each tap: its number, the outputs that it serves, and the inputs that they read.

        Both indices are slices for full tensors (batch and channels whole); taps in row-major
        order; taps that fall on padding everywhere are left out.
        """
        for number, tap in enumerate(product(*(range(k) for k in self.kernel))):
            served = [self._served(axis, k) for axis, k in enumerate(tap)]
            if all(last >= first for first, last in served):
                outputs, inputs = zip(
                    *(self._slices(axis, k, *served[axis]) for axis, k in enumerate(tap)),
                    strict=True,
                )
                yield number, (..., *outputs), (..., *inputs)

    def _served(self, axis: int, tap: int) -> tuple[int, int]:
        """First and last output whose ``tap`` lies inside the input."""
        offset = self.pads_begin[axis] - tap * self.dilations[axis]
        stride = self.strides[axis]
        first = max(-(-offset // stride), 0)
        last = min((self.in_size[axis] - 1 + offset) // stride, self.out_size[axis] - 1)
        return first, last

    def _slices(self, axis: int, tap: int, first: int, last: int) -> tuple[slice, slice]:
        stride = self.strides[axis]
        start = first * stride - self.pads_begin[axis] + tap * self.dilations[axis]
        return (
            slice(first, last + 1),
            slice(start, start + (last - first) * stride + 1, stride),
        )

    def counts(self, include_pad: bool) -> Array:
        """Elements that each window averages over, at least 1: int64 of shape ``out_size``.

        With ``include_pad`` padding counts, but not what lies beyond it (ceil_mode).
        """
        total = np.ones((1,) * self.rank, np.int64)
        for axis in range(self.rank):
            low = -self.pads_begin[axis] if include_pad else 0
            high = self.in_size[axis] + (self.pads_end[axis] if include_pad else 0)
            outputs = np.arange(self.out_size[axis]) * self.strides[axis] - self.pads_begin[axis]
            taps = np.arange(self.kernel[axis]) * self.dilations[axis]
            places = outputs[:, None] + taps
            inside = ((places >= low) & (places < high)).sum(axis=1)
            total = total * inside.reshape([-1 if i == axis else 1 for i in range(self.rank)])
        return np.maximum(total, 1)


def _windows(size: int, begin: int, end: int, reach: int, stride: int, ceil: bool) -> int:
    """Number of windows along an axis; with ``ceil`` none starts in the padding at the end."""
    room = size + begin + end - reach
    if not ceil or room < 0:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= size + begin else count
