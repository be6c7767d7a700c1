"""Detectors of the YOLO family that give a mask of each object, too.

Sources: Jocher et al., YOLOv8 and YOLO11 (Ultralytics), "-seg"; Zhao et al., "Fast segment
anything", 2023, which is YOLOv8 with one class. Masks are sums of prototypes with the factors of
each box. Results are boxes, scores and factors at each place, and the prototypes as further rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from coexec.zoo.layers import NONE, SILU, Layers, Map
from coexec.zoo.yolo import V8_EXTRA, V8_NANO, V8_SMALL, Sizes, heads_free, v8_maps, v11_maps

MASKS = 32
"""Prototypes, and factors of each box."""


def yolov8n_seg(
    batch: int | None = None, classes: int = 80, *, image_size: int = 640, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, places, classes + 36)."""
    return _v8("yolov8n_seg", V8_NANO, batch, classes, image_size, seed)


def fastsam_s(
    batch: int | None = None, classes: int = 1, *, image_size: int = 640, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, places, classes + 36)."""
    return _v8("fastsam_s", V8_SMALL, batch, classes, image_size, seed)


def fastsam_x(
    batch: int | None = None, classes: int = 1, *, image_size: int = 640, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, places, classes + 36)."""
    return _v8("fastsam_x", V8_EXTRA, batch, classes, image_size, seed)


def yolo11n_seg(
    batch: int | None = None, classes: int = 80, *, image_size: int = 640, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, places, classes + 36)."""
    layers = Layers("yolo11n_seg", batch, (3, image_size, image_size), seed, SILU)
    maps = v11_maps(layers)
    return _segmented(layers, maps, heads_free(layers, maps, classes, light=True), 64, classes)


def _v8(
    name: str, sizes: Sizes, batch: int | None, classes: int, image_size: int, seed: int
) -> ir.Model:
    layers = Layers(name, batch, (3, image_size, image_size), seed, SILU)
    maps = v8_maps(layers, sizes)
    heads = heads_free(layers, maps, classes, light=False)
    return _segmented(layers, maps, heads, sizes.widths[2], classes)


def _segmented(
    layers: Layers, maps: Sequence[Map], heads: Sequence[Map], inside: int, classes: int
) -> ir.Model:
    """Factors of masks behind boxes and scores; prototypes padded to as many channels."""
    few = max(maps[0].channels // 4, MASKS)
    found = []
    for x, head in zip(maps, heads, strict=True):
        h = layers.conv(layers.conv(x, few, 3), few, 3)
        found.append(layers.concat(head, layers.conv(h, MASKS, norm=False, act=NONE)))
    up = layers.transposed(layers.conv(maps[0], inside, 3), inside, act=NONE)
    masks = layers.conv(layers.conv(up, inside, 3), MASKS)
    each = classes + 4 + MASKS
    return layers.anchors([*found, layers.pad_channels(masks, each)], each)
