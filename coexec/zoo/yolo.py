"""One-stage detectors of the YOLO family, v3 tiny to v11, without what suppresses overlaps.

Sources: Redmon, Farhadi, "YOLOv3: An incremental improvement", 2018 (tiny); Jocher et al., YOLOv5,
YOLOv8 and YOLO11 (Ultralytics); Wang et al., "YOLOv7", 2022 (tiny). Results are boxes and scores at
each place and size.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from coexec.zoo.layers import LEAKY, NONE, SILU, Layers, Map
from coexec.zoo.yolo_blocks import (
    BINS,
    attention_stage,
    c2f,
    c3,
    c3k2,
    decoupled,
    elan_tiny,
    sppcsp_tiny,
    sppf,
)

ANCHORS = 3
"""Boxes of each place, where a detector has anchors."""


@dataclass(frozen=True)
class Sizes:
    """YOLOv8's widths of the stem and of each stage, blocks of each stage and of the neck's."""

    widths: tuple[int, int, int, int, int]
    depths: tuple[int, int, int, int] = (1, 2, 2, 1)
    neck: int = 1


V8_NANO = Sizes((16, 32, 64, 128, 256))
V8_SMALL = Sizes((32, 64, 128, 256, 512))
V8_EXTRA = Sizes((80, 160, 320, 640, 640), (3, 6, 6, 3), 3)


def yolov3_tiny(
    batch: int | None = None,
    classes: int = 80,
    *,
    height: int = 416,
    width: int = 416,
    seed: int = 0,
) -> ir.Model:
    """Without its pool of stride 1: (N, 3, height, width) -> (N, boxes, classes + 5)."""
    layers = Layers("yolov3_tiny", batch, (3, height, width), seed, LEAKY)
    x, fine = layers.x, None
    for out in (16, 32, 64, 128, 256):
        x = layers.conv(x, out, 3)
        fine = x
        x = layers.max_pool(x, 2, 2)
    assert fine is not None
    x = layers.conv(x, 512, 3)
    x = layers.conv(layers.conv(x, 1024, 3), 256)
    deep = layers.conv(x, 512, 3)
    up = layers.resize(layers.conv(x, 128), 2)
    fine = layers.conv(layers.concat(up, fine), 256, 3)
    return _anchored(layers, [fine, deep], classes)


def yolov5m(
    batch: int | None = None, classes: int = 80, *, image_size: int = 640, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, boxes, classes + 5)."""
    layers = Layers("yolov5m", batch, (3, image_size, image_size), seed, SILU)
    depths, widths = (2, 4, 6, 2), (96, 192, 384, 768)
    x = layers.conv(layers.x, 48, 6, stride=2, pad=2)
    found = []
    for depth, out in zip(depths, widths, strict=True):
        x = c3(layers, layers.conv(x, out, 3, stride=2), out, depth)
        found.append(x)
    found[-1] = sppf(layers, x, 768)
    tops = []
    x = found[-1]
    for beside, out in ((found[2], 384), (found[1], 192)):
        x = layers.conv(x, out)
        tops.append(x)
        x = c3(layers, layers.concat(layers.resize(x, 2), beside), out, 2, added=False)
    maps = [x]
    for beside, out in ((tops[1], 384), (tops[0], 768)):
        down = layers.conv(maps[-1], maps[-1].channels, 3, stride=2)
        maps.append(c3(layers, layers.concat(down, beside), out, 2, added=False))
    return _anchored(layers, maps, classes)


def yolov7_tiny(
    batch: int | None = None, classes: int = 80, *, image_size: int = 640, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, boxes, classes + 5)."""
    layers = Layers("yolov7_tiny", batch, (3, image_size, image_size), seed, LEAKY)
    x = layers.conv(layers.conv(layers.x, 32, 3, stride=2), 64, 3, stride=2)
    x = elan_tiny(layers, x, 32, 64)
    found = []
    for inside, out in ((64, 128), (128, 256), (256, 512)):
        x = elan_tiny(layers, layers.max_pool(x, 2, 2), inside, out)
        found.append(x)
    tops = [sppcsp_tiny(layers, x, 256)]
    for beside, inside in ((found[1], 64), (found[0], 32)):
        up = layers.resize(layers.conv(tops[-1], 2 * inside), 2)
        x = layers.concat(layers.conv(beside, 2 * inside), up)
        tops.append(elan_tiny(layers, x, inside, 2 * inside))
    maps = [tops[2]]
    for beside, inside in ((tops[1], 64), (tops[0], 128)):
        down = layers.conv(maps[-1], 2 * inside, 3, stride=2)
        maps.append(elan_tiny(layers, layers.concat(down, beside), inside, 2 * inside))
    return _anchored(layers, [layers.conv(x, 2 * x.channels, 3) for x in maps], classes)


def yolov8n(
    batch: int | None = None, classes: int = 80, *, image_size: int = 640, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, boxes, classes + 4)."""
    layers = Layers("yolov8n", batch, (3, image_size, image_size), seed, SILU)
    heads = heads_free(layers, v8_maps(layers, V8_NANO), classes, light=False)
    return layers.anchors(heads, classes + 4)


def yolo11n(
    batch: int | None = None, classes: int = 80, *, image_size: int = 640, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, boxes, classes + 4)."""
    layers = Layers("yolo11n", batch, (3, image_size, image_size), seed, SILU)
    heads = heads_free(layers, v11_maps(layers), classes, light=True)
    return layers.anchors(heads, classes + 4)


def v8_maps(layers: Layers, sizes: Sizes) -> list[Map]:
    """YOLOv8's three maps, fine ones first."""
    first, *widths = sizes.widths
    x = layers.conv(layers.x, first, 3, stride=2)
    found = []
    for depth, out in zip(sizes.depths, widths, strict=True):
        x = c2f(layers, layers.conv(x, out, 3, stride=2), out, depth)
        found.append(x)
    _, fine_width, width, deep_width = widths
    neck = sizes.neck
    deep = sppf(layers, x, deep_width)
    middle = c2f(layers, layers.concat(layers.resize(deep, 2), found[2]), width, neck, added=False)
    up = layers.concat(layers.resize(middle, 2), found[1])
    fine = c2f(layers, up, fine_width, neck, added=False)
    down = layers.concat(layers.conv(fine, fine_width, 3, stride=2), middle)
    middle = c2f(layers, down, width, neck, added=False)
    down = layers.concat(layers.conv(middle, width, 3, stride=2), deep)
    return [fine, middle, c2f(layers, down, deep_width, neck, added=False)]


def v11_maps(layers: Layers) -> list[Map]:
    """YOLO11 nano's three maps, fine ones first."""
    x = layers.conv(layers.conv(layers.x, 16, 3, stride=2), 32, 3, stride=2)
    x = c3k2(layers, x, 64, 0.25)
    found = []
    for width, out, ratio in ((64, 128, 0.25), (128, 128, 0.5), (256, 256, 0.5)):
        x = c3k2(layers, layers.conv(x, width, 3, stride=2), out, ratio, nested=ratio == 0.5)
        found.append(x)
    deep = attention_stage(layers, sppf(layers, x, 256))
    middle = c3k2(layers, layers.concat(layers.resize(deep, 2), found[1]), 128, 0.5)
    fine = c3k2(layers, layers.concat(layers.resize(middle, 2), found[0]), 64, 0.5)
    down = layers.concat(layers.conv(fine, 64, 3, stride=2), middle)
    middle = c3k2(layers, down, 128, 0.5)
    down = layers.concat(layers.conv(middle, 128, 3, stride=2), deep)
    return [fine, middle, c3k2(layers, down, 256, 0.5, nested=True)]


def _anchored(layers: Layers, maps: list[Map], classes: int) -> ir.Model:
    each = classes + 5
    heads = [layers.conv(x, ANCHORS * each, norm=False, act=NONE) for x in maps]
    return layers.anchors(heads, each)


def heads_free(layers: Layers, maps: list[Map], classes: int, *, light: bool) -> list[Map]:
    """Boxes and scores without anchors: boxes are means over bins of distances of each side."""
    boxed = max(BINS, maps[0].channels // 4, 4 * BINS)
    scored = max(maps[0].channels, min(classes, 100))
    return [decoupled(layers, x, (boxed, scored), classes, light=light) for x in maps]
