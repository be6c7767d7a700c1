"""MaxRoiPool: the largest element of each bin of regions of feature maps.

https://onnx.ai/onnx/operators/onnx__MaxRoiPool.html (Girshick, "Fast R-CNN", 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from coexec.core.types import Array, OpCall, TensorType
from coexec.ops.opdef import Example, OpDef, Sample


def bins_of(call: OpCall) -> tuple[int, int]:
    """``pooled_shape``; ``ValueError`` where operands and attributes do not fit."""
    x, rois = call.input(0), call.input(1)
    bins = tuple(int(size) for size in call.attribute("pooled_shape", ()))
    if x.rank != 4 or rois.rank != 2 or rois.shape[1] != 5 or rois.dtype != x.dtype:
        raise ValueError(f"MaxRoiPool of {x} by regions {rois}")
    if len(bins) != 2 or min(bins) < 1:
        raise ValueError(f"MaxRoiPool: pooled_shape {bins}")
    return bins[0], bins[1]


def infer(call: OpCall) -> Sequence[TensorType]:
    count, channels = call.input(1).shape[0], call.input(0).shape[1]
    return (call.input(0).with_shape((count, channels, *bins_of(call))),)


def edges(first: float, last: float, bins: int, size: int) -> list[slice]:
    """Elements of each bin between two corners, both of which belong to the region."""
    start, end = int(np.floor(first + 0.5)), int(np.floor(last + 0.5))
    width = max(end - start + 1, 1) / bins
    ends = [
        (int(np.floor(b * width)) + start, int(np.ceil((b + 1) * width)) + start)
        for b in range(bins)
    ]
    return [slice(min(max(a, 0), size), min(max(b, 0), size)) for a, b in ends]


def max_roi_pool(call: OpCall, operands: Sequence[Any]) -> Sequence[Array]:
    """Zeros where a bin lies outside."""
    x, rois = np.asarray(operands[0]), np.asarray(operands[1])
    bins, scale = bins_of(call), float(call.attribute("spatial_scale", 1.0))
    y = np.zeros((len(rois), x.shape[1], *bins), x.dtype)
    for number, (image, *corners) in enumerate(rois.astype(np.float64)):
        left, top, right, bottom = (corner * scale for corner in corners)
        for i, rows in enumerate(edges(top, bottom, bins[0], x.shape[2])):
            for j, columns in enumerate(edges(left, right, bins[1], x.shape[3])):
                part = x[int(image), :, rows, columns]
                if part.size:
                    y[number, :, i, j] = part.max((1, 2))
    return (y,)


_ROIS = np.array([[1, 0, 1, 6, 4], [0, 2, 2, 2, 3], [1, 5, 3, 30, 12]], np.float32)

OPS = (
    OpDef(
        "MaxRoiPool",
        infer,
        max_roi_pool,
        not_differentiable="RoiAlign took its place in what is trained",
        examples=(
            Example((Sample((2, 3, 6, 9)), _ROIS), {"pooled_shape": (2, 3)}, gradient=False),
            Example(
                (Sample((2, 3, 6, 9)), _ROIS),
                {"pooled_shape": (1, 2), "spatial_scale": 0.5},
                gradient=False,
            ),
        ),
    ),
)
