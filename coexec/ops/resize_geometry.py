"""How Resize maps output positions to input positions, axis by axis.

Every coordinate mode is linear in the output position y, x = slope * y + offset, and every
interpolation is a weighted sum over neighbours of x, separately along each axis. Rules:
https://onnx.ai/onnx/operators/onnx__Resize.html.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

import numpy as np

from coexec.core.types import Array, OpCall

SNAP = 1e-9
"""Positions this close to a multiple of 1/2 count as equal to it: rounding must not decide."""

SUPPORT = {"linear": 1, "cubic": 2}
"""Half width of the interpolation filters, in input elements."""


@dataclass(frozen=True)
class AxisMap:
    """One resized axis: output ``y`` samples the input at ``slope * y + offset``.

    ``filter_scale`` is below 1 where antialiasing widens the filter. With ``crop``, positions
    outside of [0, in_size - 1] give the extrapolation value.
    """

    axis: int
    in_size: int
    out_size: int
    slope: float
    offset: float
    filter_scale: float
    crop: bool

    def positions(self) -> Array:
        """Position in the input of each output: float64."""
        x = self.slope * np.arange(self.out_size) + self.offset
        snapped = np.round(2 * x) / 2
        return np.asarray(np.where(np.abs(x - snapped) < SNAP, snapped, x))


@dataclass(frozen=True)
class ResizeGeometry:
    """The resized axes of a Resize (axes that stay as they are do not appear), and the filter."""

    in_shape: tuple[int, ...]
    out_shape: tuple[int, ...]
    axes: tuple[AxisMap, ...]
    mode: str
    nearest_mode: str
    cubic_a: float
    exclude_outside: bool
    extrapolation: float

    @classmethod
    def of(cls, call: OpCall) -> ResizeGeometry:
        """Geometry of Resize or coexec::ResizeGrad (which names X's shape in ``input_shape``).

        Raises ``ValueError`` where operands and attributes do not fit.
        """
        shape = tuple(int(v) for v in call.attribute("input_shape") or call.input(0).shape)
        mode = call.attribute("mode", "nearest")
        if mode not in ("nearest", "linear", "cubic"):
            raise ValueError(f"Resize: unknown mode {mode!r}")
        if mode == "nearest" and call.attribute("antialias", 0):
            raise ValueError("Resize: antialias needs mode linear or cubic")
        scales, sizes = _scales_and_sizes(call, shape)
        crops = _crops(call, len(shape))
        maps = [
            _axis_map(call, axis, shape[axis], sizes[axis], scales[axis], crops[axis])
            for axis in range(len(shape))
        ]
        return cls(
            shape,
            sizes,
            tuple(m for m in maps if not _is_identity(m)),
            mode,
            call.attribute("nearest_mode", "round_prefer_floor"),
            float(call.attribute("cubic_coeff_a", -0.75)),
            bool(call.attribute("exclude_outside", 0)),
            float(call.attribute("extrapolation_value", 0.0)),
        )

    def taps(self, axis: AxisMap) -> tuple[Array, Array]:
        """Input indices and weights of each output along an axis: both (out_size, taps).

        Outputs that take the extrapolation value have weights 0.
        """
        x = axis.positions()
        if self.mode == "nearest":
            index = _nearest(x, self.nearest_mode)[:, None]
            weight = np.ones(index.shape)
        else:
            reach = ceil(SUPPORT[self.mode] / axis.filter_scale)
            index = np.floor(x).astype(np.int64)[:, None] + np.arange(1 - reach, reach + 1)
            weight = self._filter((index - x[:, None]) * axis.filter_scale)
            if self.exclude_outside:
                weight = np.where((index < 0) | (index >= axis.in_size), 0.0, weight)
            total = weight.sum(axis=1, keepdims=True)
            weight = weight / np.where(total == 0, 1.0, total)
        weight = np.where(self.outside(axis)[:, None], 0.0, weight)
        return np.clip(index, 0, axis.in_size - 1), weight

    def outside(self, axis: AxisMap) -> Array:
        """Which outputs take the extrapolation value."""
        x = axis.positions()
        return np.asarray(axis.crop & ((x < 0) | (x > axis.in_size - 1)))

    def _filter(self, distance: Array) -> Array:
        d = np.abs(distance)
        if self.mode == "linear":
            return np.asarray(np.maximum(1 - d, 0))
        a = self.cubic_a
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
        return np.where(d <= 1, near, np.where(d < SUPPORT["cubic"], far, 0.0))


def _nearest(x: Array, mode: str) -> Array:
    rules: dict[str, Callable[[Array], Array]] = {
        "round_prefer_floor": lambda v: np.ceil(v - 0.5),
        "round_prefer_ceil": lambda v: np.floor(v + 0.5),
        "floor": np.floor,
        "ceil": np.ceil,
    }
    if mode not in rules:
        raise ValueError(f"Resize: unknown nearest_mode {mode!r}")
    return rules[mode](x).astype(np.int64)


def _axes(call: OpCall, rank: int) -> tuple[int, ...]:
    axes = call.attribute("axes")
    if not axes:
        return tuple(range(rank))
    if any(not -rank <= a < rank for a in axes):
        raise ValueError(f"Resize: axes {tuple(axes)} are outside of rank {rank}")
    return tuple(int(a) % rank for a in axes)


def _value(call: OpCall, position: int) -> Array | None:
    """A constant operand; empty counts as absent, as exporters write it."""
    if not call.has_input(position) or call.input(position).size == 0:
        return None
    value = call.constant(position)
    if value is None:
        raise ValueError(f"{call.identifier}: input {position} must be known before running")
    return value


def _scales_and_sizes(
    call: OpCall, shape: tuple[int, ...]
) -> tuple[tuple[float, ...], tuple[int, ...]]:
    axes = _axes(call, len(shape))
    given, wanted = _value(call, 2), _value(call, 3)
    if (given is None) == (wanted is None):
        raise ValueError(f"{call.identifier}: exactly one of scales and sizes must be given")
    scales, sizes = [1.0] * len(shape), list(shape)
    values: Sequence[Any] = (given if given is not None else wanted).tolist()  # type: ignore[union-attr]
    if len(values) != len(axes) or min(values) <= 0:
        raise ValueError(f"{call.identifier}: scales or sizes {values} do not fit axes {axes}")
    if given is not None:
        for axis, scale in zip(axes, values, strict=True):
            scales[axis] = float(scale)
            # ONNX's shape inference multiplies in float32.
            sizes[axis] = floor(np.float32(shape[axis]) * np.float32(scale))
    else:
        _fit_sizes(call, shape, axes, values, scales, sizes)
    if min(sizes) < 1:
        raise ValueError(f"{call.identifier}: output {tuple(sizes)} of {shape} is empty")
    return tuple(scales), tuple(sizes)


def _fit_sizes(
    call: OpCall,
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    wanted: Sequence[Any],
    scales: list[float],
    sizes: list[int],
) -> None:
    """Fill in ``scales`` and ``sizes`` from wanted sizes under ``keep_aspect_ratio_policy``."""
    ratios = [int(size) / shape[axis] for axis, size in zip(axes, wanted, strict=True)]
    policy = call.attribute("keep_aspect_ratio_policy", "stretch")
    if policy not in ("stretch", "not_larger", "not_smaller"):
        raise ValueError(f"{call.identifier}: unknown keep_aspect_ratio_policy {policy!r}")
    common = min(ratios) if policy == "not_larger" else max(ratios)
    for axis, size, ratio in zip(axes, wanted, ratios, strict=True):
        scales[axis] = ratio if policy == "stretch" else common
        sizes[axis] = int(size) if policy == "stretch" else floor(common * shape[axis] + 0.5)


def _crops(call: OpCall, rank: int) -> list[tuple[float, float] | None]:
    """Start and end of the region of interest per axis, for tf_crop_and_resize alone."""
    if call.attribute("coordinate_transformation_mode", "half_pixel") != "tf_crop_and_resize":
        return [None] * rank
    axes, roi = _axes(call, rank), _value(call, 1)
    if roi is None or roi.size != 2 * len(axes):
        raise ValueError(f"{call.identifier}: tf_crop_and_resize needs a roi for axes {axes}")
    crops: list[tuple[float, float] | None] = [None] * rank
    for i, axis in enumerate(axes):
        crops[axis] = (float(roi[i]), float(roi[i + len(axes)]))
    return crops


def _axis_map(
    call: OpCall,
    axis: int,
    in_size: int,
    out_size: int,
    scale: float,
    crop: tuple[float, float] | None,
) -> AxisMap:
    mode = call.attribute("coordinate_transformation_mode", "half_pixel")
    slope, offset = _line(mode, in_size, out_size, scale, crop)
    wide = min(scale, 1.0) if call.attribute("antialias", 0) else 1.0
    return AxisMap(axis, in_size, out_size, slope, offset, wide, crop is not None)


def _line(
    mode: str, in_size: int, out_size: int, scale: float, crop: tuple[float, float] | None
) -> tuple[float, float]:
    """Slope and offset of x(y); ``in_size * scale`` may be fractional, ``out_size`` is not."""
    width = in_size * scale
    half_pixel = 0.5 / scale - 0.5
    if mode == "half_pixel":
        return 1 / scale, half_pixel
    if mode == "pytorch_half_pixel":
        return (1 / scale, half_pixel) if out_size > 1 else (0.0, 0.0)
    if mode == "half_pixel_symmetric":
        return 1 / scale, in_size / 2 * (1 - out_size / width) + half_pixel
    if mode == "align_corners":
        return (0.0 if width == 1 else (in_size - 1) / (width - 1)), 0.0
    if mode == "asymmetric":
        return 1 / scale, 0.0
    if mode != "tf_crop_and_resize":
        raise ValueError(f"Resize: unknown coordinate_transformation_mode {mode!r}")
    start, end = crop or (0.0, 1.0)
    if out_size == 1:
        return 0.0, 0.5 * (start + end) * (in_size - 1)
    return (end - start) * (in_size - 1) / (width - 1), start * (in_size - 1)


def _is_identity(m: AxisMap) -> bool:
    """Whether every output of the axis is the input at the same place."""
    return m.in_size == m.out_size and bool(np.all(m.positions() == np.arange(m.out_size)))
