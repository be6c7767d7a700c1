"""RoiAlign: regions of feature maps in one size, read between elements, and its gradient.

https://onnx.ai/onnx/operators/onnx__RoiAlign.html (He et al., "Mask R-CNN", 2017). A bin holds a
grid of samples, each the bilinear sum of four elements. ``max`` is, as in ONNX, that of all
weighted elements. Regions get no gradient, as in detectors, which train on proposals that they do
not follow back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.elementwise import is_float
from coexec.ops.opdef import COEXEC, Example, GradientScope, OpDef, Sample, Work
from coexec.ops.precision import widened

MODES = ("avg", "max")
SHIFTS = {"half_pixel": 0.5, "output_half_pixel": 0.0}
GRAD = "RoiAlignGrad"


@dataclass(frozen=True)
class Regions:
    """``count`` regions of ``images`` (batch, channels, height, width), each of ``out`` bins.

    ``grid`` samples along each axis of a bin; 0: as many as a region has elements there.
    """

    count: int
    images: tuple[int, ...]
    out: tuple[int, int]
    grid: int
    scale: float
    shift: float
    mode: str

    @property
    def result(self) -> tuple[int, ...]:
        return (self.count, self.images[1], *self.out)

    @classmethod
    def of(cls, call: OpCall) -> Regions:
        """Of RoiAlign (X, regions, images) or its gradient (dY, regions, images, X).

        Raises ``ValueError`` where operands and attributes do not fit.
        """
        rois, images = call.input(1), call.input(2)
        shape = call.input(0).shape
        if call.op_type == GRAD:
            shape = tuple(int(size) for size in call.attributes["input_shape"])
        mode = call.attribute("mode", "avg")
        where = call.attribute("coordinate_transformation_mode", "half_pixel")
        if mode not in MODES or where not in SHIFTS:
            raise ValueError(f"{call.identifier}: unknown mode {mode!r} or {where!r}")
        if len(shape) != 4 or rois.rank != 2 or rois.shape[1] != 4 or not is_float(rois.dtype):
            raise ValueError(f"{call.identifier}: regions {rois} of images {shape}")
        if images.shape != rois.shape[:1] or images.dtype != np.int64:
            raise ValueError(f"{call.identifier}: images {images} of regions {rois}")
        out = int(call.attribute("output_height", 1)), int(call.attribute("output_width", 1))
        grid = int(call.attribute("sampling_ratio", 0))
        if min(out) < 1 or grid < 0 or min(shape[2:]) < 1:
            raise ValueError(f"{call.identifier}: {out} bins of {grid} samples of images {shape}")
        scale = float(call.attribute("spatial_scale", 1.0))
        return cls(rois.shape[0], shape, out, grid, scale, SHIFTS[where], mode)

    def taps(self, roi: Array, axis: int) -> tuple[Array, Array]:
        """Along an axis (0: height), elements and weights of a region's samples.

        Both are (2, bins, samples of a bin); a sample more than one element outside has no weight.
        """
        size, bins = self.images[2 + axis], self.out[axis]
        first, last = (float(roi[i]) * self.scale - self.shift for i in (1 - axis, 3 - axis))
        extent = last - first if self.shift else max(last - first, 1.0)
        width = extent / bins
        grid = self.grid or max(int(np.ceil(width)), 0)
        at = (
            first
            + np.arange(bins)[:, None] * width
            + (np.arange(grid) + 0.5) * width / max(grid, 1)
        )
        inside = (at >= -1.0) & (at <= size)
        at = np.clip(at, 0, size - 1)
        low = np.floor(at).astype(np.int64)
        part = at - low
        index = np.stack([low, np.minimum(low + 1, size - 1)])
        return index, np.stack([1 - part, part]) * inside

    def average(self, roi: Array, axis: int) -> Array:
        """The mean over the samples of a bin, as a matrix (bins, elements)."""
        index, weight = self.taps(roi, axis)
        matrix = np.zeros((self.out[axis], self.images[2 + axis]))
        np.add.at(matrix, (np.arange(self.out[axis])[:, None], index), weight)
        return np.asarray(matrix / max(weight.shape[-1], 1))

    def weighted(self, roi: Array) -> tuple[Array, Array]:
        """All weighted elements of each bin, flat in an image: places and weights (bins, elements).

        Four for each sample, those of the first row of samples first.
        """
        (rows, row_weights), (columns, column_weights) = (self.taps(roi, axis) for axis in (0, 1))
        flat = rows[:, None, :, None, :, None] * self.images[3] + columns[None, :, None, :, None]
        weight = row_weights[:, None, :, None, :, None] * column_weights[None, :, None, :, None]
        order = (2, 3, 4, 5, 0, 1)
        bins = self.out[0] * self.out[1]
        count = int(np.prod(flat.shape)) // bins
        return (
            flat.transpose(order).reshape(bins, count),
            weight.transpose(order).reshape(bins, count),
        )


def infer(call: OpCall) -> Sequence[TensorType]:
    r = Regions.of(call)
    if call.input(1).dtype != call.input(0).dtype:
        raise ValueError(f"RoiAlign: regions {call.input(1)} of images {call.input(0)}")
    return (call.input(0).with_shape(r.result),)


@widened
def roi_align(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    r, x, rois, images = Regions.of(call), *map(np.asarray, operands[:3])
    y = np.zeros(r.result, x.dtype)
    for number, roi in enumerate(rois):
        planes = x[int(images[number])]
        if r.mode == "avg":
            y[number] = r.average(roi, 0) @ planes @ r.average(roi, 1).T
            continue
        flat, weight = r.weighted(roi)
        if flat.shape[1]:
            values = planes.reshape(r.images[1], -1)[:, flat] * weight
            y[number] = values.max(-1).reshape(r.result[1:])
    return (y,)


def gradient(s: GradientScope) -> Sequence[ir.Value | None]:
    """To the elements that values were made of."""
    attributes = {**s.call.attributes, "input_shape": s.call.input(0).shape}
    operands = [s.grad(), s.value(1), s.value(2)]
    if s.call.attribute("mode", "avg") == "max":
        operands.append(s.value(0))
    return (s.op(GRAD, operands, attributes, domain=COEXEC), None, None)


def infer_grad(call: OpCall) -> Sequence[TensorType]:
    r = Regions.of(call)
    if call.input(0).shape != r.result or (r.mode == "max" and call.input(3).shape != r.images):
        raise ValueError(f"{GRAD}: gradient {call.input(0)} of a result {r.result}")
    return (call.input(0).with_shape(r.images),)


@widened
def roi_align_grad(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    r, dy, rois, images = Regions.of(call), *map(np.asarray, operands[:3])
    dx = np.zeros(r.images, dy.dtype)
    for part, roi, image in zip(dy, rois, images, strict=True):
        if r.mode == "avg":
            dx[int(image)] += r.average(roi, 0).T @ part @ r.average(roi, 1)
        else:
            values = np.asarray(operands[3])[int(image)].reshape(r.images[1], -1)
            _to_largest(dx[int(image)].reshape(r.images[1], -1), values, part, *r.weighted(roi))
    return (dx,)


def _to_largest(lines: Array, values: Array, part: Array, flat: Array, weight: Array) -> None:
    """Add a region's gradient to the element that was the largest of its bin, by its weight."""
    if not flat.shape[1]:
        return
    best = (values[:, flat] * weight).argmax(-1)  # (channels, bins)
    bins = np.arange(flat.shape[0])
    where = (np.arange(len(lines))[:, None], flat[bins, best])
    np.add.at(lines, where, weight[bins, best] * part.reshape(best.shape))


def work(call: OpCall) -> Work:
    """Four multiply-adds for each sample and channel; 4 samples of a bin where regions decide."""
    r = Regions.of(call)
    moved = sum(t.nbytes for t in (*call.inputs, *call.outputs) if t is not None)
    bins = r.count * r.images[1] * r.out[0] * r.out[1]
    return Work(8 * bins * (r.grid or 2) ** 2, moved)


ROIS = np.array(
    [[1.3, 0.4, 7.7, 5.2], [-3.0, 2.5, 2.2, 9.4], [4.0, 4.0, 4.5, 4.2], [0.0, 0.0, 30.0, 2.0]],
    np.float32,
)
IMAGES = np.array([1, 0, 1, 0])


def _case(x: tuple[int, ...], **attributes: Any) -> Example:
    return Example((Sample(x), ROIS, IMAGES), attributes)


def _grad_case(x: tuple[int, ...], **attributes: Any) -> Example:
    out = int(attributes.get("output_height", 1)), int(attributes.get("output_width", 1))
    operands: list[Sample | Array] = [Sample((len(ROIS), x[1], *out)), ROIS, IMAGES]
    if attributes.get("mode") == "max":
        operands.append(Sample(x))
    return Example(tuple(operands), {**attributes, "input_shape": x}, gradient=False)


_CASES: tuple[tuple[tuple[int, ...], dict[str, Any]], ...] = (
    ((2, 3, 6, 9), {"output_height": 3, "output_width": 2}),
    ((2, 9, 6, 9), {"output_height": 2, "output_width": 2, "sampling_ratio": 2}),
    ((2, 2, 12, 18), {"output_height": 2, "output_width": 3, "spatial_scale": 2.0}),
    (
        (2, 3, 6, 9),
        {"output_width": 4, "coordinate_transformation_mode": "output_half_pixel"},
    ),
    ((2, 3, 6, 9), {"output_height": 2, "output_width": 2, "mode": "max", "sampling_ratio": 2}),
)

OPS = (
    OpDef(
        "RoiAlign",
        infer,
        roi_align,
        gradient=gradient,
        work=work,
        examples=tuple(_case(x, **attributes) for x, attributes in _CASES),
    ),
    OpDef(
        GRAD,
        infer_grad,
        roi_align_grad,
        domain=COEXEC,
        not_differentiable="second derivatives of RoiAlign are not provided",
        work=work,
        examples=tuple(_grad_case(x, **attributes) for x, attributes in _CASES),
    ),
)
