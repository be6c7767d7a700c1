"""One-stage detectors of the YOLO family, v3 tiny to v11, without what suppresses overlaps.

Sources: Redmon, Farhadi, "YOLOv3: An incremental improvement", 2018 (tiny); Jocher et al., YOLOv5,
YOLOv8 and YOLO11 (Ultralytics); Wang et al., "YOLOv7", 2022 (tiny). Results are boxes and scores at
each place and size.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

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
V11_NANO = Sizes((16, 32, 64, 128, 256), (1, 1, 1, 1))


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
    return _anchored(layers, _v5_maps(layers, 2 / 3, 0.75), classes)


def yolov5(
    batch: int | None = None,
    classes: int = 80,
    *,
    image_size: int = 640,
    depth: float = 1.0,
    width: float = 1.0,
    seed: int = 0,
) -> ir.Model:
    """Large, or times ``depth`` and ``width``: (N, 3, size, size) -> (N, boxes, classes + 5)."""
    layers = Layers("yolov5", batch, (3, image_size, image_size), seed, SILU)
    return _anchored(layers, _v5_maps(layers, depth, width), classes)


def _v5_maps(layers: Layers, depth: float, width: float) -> list[Map]:
    """Three maps, fine ones first."""
    stem, *widths = scaled((64, 128, 256, 512, 1024), width)
    x = layers.conv(layers.x, stem, 6, stride=2, pad=2)
    found = []
    for blocks, out in zip((3, 6, 9, 3), widths, strict=True):
        x = c3(layers, layers.conv(x, out, 3, stride=2), out, max(1, round(blocks * depth)))
        found.append(x)
    found[-1], neck = sppf(layers, x, widths[-1]), max(1, round(3 * depth))
    tops = []
    x = found[-1]
    for beside, out in ((found[2], widths[2]), (found[1], widths[1])):
        x = layers.conv(x, out)
        tops.append(x)
        x = c3(layers, layers.concat(layers.resize(x, 2), beside), out, neck, added=False)
    maps = [x]
    for beside, out in ((tops[1], widths[2]), (tops[0], widths[3])):
        down = layers.conv(maps[-1], maps[-1].channels, 3, stride=2)
        maps.append(c3(layers, layers.concat(down, beside), out, neck, added=False))
    return maps


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


def yolov8(
    batch: int | None = None,
    classes: int = 80,
    *,
    image_size: int = 640,
    depth: float = 1.0,
    width: float = 1.0,
    widest: int = 512,
    seed: int = 0,
) -> ir.Model:
    """Large, or times ``depth`` and ``width``, of at most ``widest`` channels before that.

    (N, 3, size, size) -> (N, boxes, classes + 4).
    """
    layers = Layers("yolov8", batch, (3, image_size, image_size), seed, SILU)
    few, many = (max(1, round(count * depth)) for count in (3, 6))
    widths = scaled((64, 128, 256, 512, min(1024, widest)), width)
    sizes = Sizes(widths, (few, many, many, few), few)
    heads = heads_free(layers, v8_maps(layers, sizes), classes, light=False)
    return layers.anchors(heads, classes + 4)


def yolo11(
    batch: int | None = None,
    classes: int = 80,
    *,
    image_size: int = 640,
    depth: int = 2,
    width: float = 1.0,
    widest: int = 512,
    seed: int = 0,
) -> ir.Model:
    """Large, or with one block where it has two (``depth``); ``width`` as :func:`yolov8`.

    (N, 3, size, size) -> (N, boxes, classes + 4).
    """
    layers = Layers("yolo11", batch, (3, image_size, image_size), seed, SILU)
    widths = scaled((64, 128, 256, 512, min(1024, widest)), width)
    # From the medium size on, all blocks hold blocks of their own.
    maps = v11_maps(layers, Sizes(widths, (depth,) * 4, depth), nested=widest == 512)
    return layers.anchors(heads_free(layers, maps, classes, light=True), classes + 4)


def yolo11n(
    batch: int | None = None, classes: int = 80, *, image_size: int = 640, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, boxes, classes + 4)."""
    layers = Layers("yolo11n", batch, (3, image_size, image_size), seed, SILU)
    heads = heads_free(layers, v11_maps(layers), classes, light=True)
    return layers.anchors(heads, classes + 4)


def scaled(
    channels: tuple[int, int, int, int, int], width: float
) -> tuple[int, int, int, int, int]:
    """So many times the channels, in whole eights."""
    first, second, third, fourth, fifth = (ceil(each * width / 8) * 8 for each in channels)
    return first, second, third, fourth, fifth


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


def v11_maps(layers: Layers, sizes: Sizes = V11_NANO, *, nested: bool = False) -> list[Map]:
    """YOLO11's three maps, fine ones first; ``nested``: all blocks hold blocks of their own."""
    first, second, third, fourth, fifth = sizes.widths
    depth = sizes.neck
    x = layers.conv(layers.conv(layers.x, first, 3, stride=2), second, 3, stride=2)
    x = c3k2(layers, x, third, 0.25, nested=nested, depth=depth)
    found = []
    for width, out, ratio in ((third, fourth, 0.25), (fourth, fourth, 0.5), (fifth, fifth, 0.5)):
        inner = nested or ratio == 0.5
        x = layers.conv(x, width, 3, stride=2)
        x = c3k2(layers, x, out, ratio, nested=inner, depth=depth)
        found.append(x)
    deep = attention_stage(layers, sppf(layers, x, fifth), depth)
    up = layers.concat(layers.resize(deep, 2), found[1])
    middle = c3k2(layers, up, fourth, 0.5, nested=nested, depth=depth)
    up = layers.concat(layers.resize(middle, 2), found[0])
    fine = c3k2(layers, up, third, 0.5, nested=nested, depth=depth)
    down = layers.concat(layers.conv(fine, third, 3, stride=2), middle)
    middle = c3k2(layers, down, fourth, 0.5, nested=nested, depth=depth)
    down = layers.concat(layers.conv(middle, fourth, 3, stride=2), deep)
    return [fine, middle, c3k2(layers, down, fifth, 0.5, nested=True, depth=depth)]


def _anchored(layers: Layers, maps: list[Map], classes: int) -> ir.Model:
    each = classes + 5
    heads = [layers.conv(x, ANCHORS * each, norm=False, act=NONE) for x in maps]
    return layers.anchors(heads, each)


def heads_free(layers: Layers, maps: list[Map], classes: int, *, light: bool) -> list[Map]:
    """Boxes and scores without anchors: boxes are means over bins of distances of each side."""
    boxed = max(BINS, maps[0].channels // 4, 4 * BINS)
    scored = max(maps[0].channels, min(classes, 100))
    return [decoupled(layers, x, (boxed, scored), classes, light=light) for x in maps]
