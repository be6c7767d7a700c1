"""Detectors on small backbones, as phones' inference libraries measure them.

Sources: Liu et al., "SSD: Single shot multibox detector", 2016, on MobileNet and on SqueezeNet 1.1
(chuanqi305), Redmon, Farhadi, "YOLO9000", 2017 and "YOLOv3", 2018, on MobileNet and on MobileNetV2
(eric612); sizes as in ncnn's benchmark. Without what suppresses overlaps.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from coexec.zoo.layers import NONE, Layers, Map
from coexec.zoo.mobilenet import STAGES
from coexec.zoo.mobilenet_v3 import v1_features

FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))
"""Channels squeezed to, and expanded to on each of two branches, of SqueezeNet's blocks."""
POOLED = (0, 2, 4)
"""Blocks with a pool in front."""
ANCHORS = (3, 6, 6, 6, 6, 6)
"""Boxes of each place of MobileNet's six maps; SqueezeNet's first one has 4."""
MIDDLE = 13
"""The block of MobileNetV2 whose widened channels are the finer map."""


def mobilenet_ssd(
    batch: int | None = None, classes: int = 21, *, image_size: int = 300, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, boxes, classes + 4)."""
    layers = Layers("mobilenet_ssd", batch, (3, image_size, image_size), seed)
    found = v1_features(layers)
    maps = [found[11], found[13]]
    for inside, out in ((256, 512), (128, 256), (128, 256), (64, 128)):
        x = layers.conv(maps[-1], inside)
        maps.append(layers.conv(x, out, 3, stride=2))
    return _boxes(layers, maps, ANCHORS, classes, kernel=1)


def squeezenet_ssd(
    batch: int | None = None, classes: int = 21, *, image_size: int = 300, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, boxes, classes + 4)."""
    layers = Layers("squeezenet_ssd", batch, (3, image_size, image_size), seed)
    x = layers.conv(layers.x, 64, 3, stride=2, pad=0, norm=False)
    maps = []
    for place, widths in enumerate(FIRES):
        if place in POOLED:
            x = layers.max_pool(x, 3, 2, ceil=True)
        x = fire(layers, x, *widths)
        if place in {3, 7}:
            maps.append(x)
    for _ in range(2):
        maps.append(fire(layers, layers.max_pool(maps[-1], 3, 2, ceil=True), 96, 384))
    for inside, out in ((128, 256), (64, 128)):
        x = layers.conv(maps[-1], inside, norm=False)
        maps.append(layers.conv(x, out, 3, stride=2, norm=False))
    maps[0] = layers.norm(maps[0])
    return _boxes(layers, maps, (4, *ANCHORS[1:]), classes, kernel=3)


def mobilenet_yolo(
    batch: int | None = None, classes: int = 20, *, image_size: int = 416, seed: int = 0
) -> ir.Model:
    """YOLOv2's boxes on two maps: (N, 3, size, size) -> (N, boxes, classes + 5)."""
    layers = Layers("mobilenet_yolo", batch, (3, image_size, image_size), seed)
    found = v1_features(layers)
    deep = layers.conv(layers.depthwise(found[13], 3), 1024)
    fine = layers.add(found[11], _enlarged(layers, deep, 512, 4))
    fine = layers.conv(layers.depthwise(fine, 3), 1024)
    each = classes + 5
    heads = [layers.conv(x, 5 * each, norm=False, act=NONE) for x in (deep, fine)]
    return layers.anchors(heads, each)


def mobilenetv2_yolov3(
    batch: int | None = None, classes: int = 20, *, image_size: int = 352, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, boxes, classes + 5)."""
    layers = Layers("mobilenetv2_yolov3", batch, (3, image_size, image_size), seed)
    x, middle = v2_features(layers)
    deep = layers.conv(layers.depthwise(x, 3), 576)
    up = _enlarged(layers, deep, 576, 2)
    fine = layers.conv(layers.depthwise(middle, 3), 576)
    fine = layers.add(up, fine)
    fine = layers.conv(layers.depthwise(fine, 3), 576)
    each = classes + 5
    heads = [layers.conv(x, 3 * each, norm=False, act=NONE) for x in (deep, fine)]
    return layers.anchors(heads, each)


def v2_features(layers: Layers) -> tuple[Map, Map]:
    """What the head's 1 x 1 convolution gives, and the widened channels at twice the size."""
    x = layers.conv(layers.x, 32, 3, stride=2)
    middle, number = x, 0
    for expansion, out, blocks, first in STAGES:
        for block in range(blocks):
            h = x if expansion == 1 else layers.conv(x, expansion * x.channels)
            if number == MIDDLE:
                middle = h
            stride = first if block == 0 else 1
            h = layers.conv(layers.depthwise(h, 3, stride=stride), out, act=NONE)
            x = layers.add(h, x) if stride == 1 and h.channels == x.channels else h
            number += 1
    return layers.conv(x, 1280), middle


def _enlarged(layers: Layers, x: Map, out: int, kernel: int) -> Map:
    """Twice the size by a transposed convolution of each channel, or of pairs of them."""
    name, edge = layers.name("transposed"), (kernel - 2) // 2
    weight = layers.net.normal(f"{name}.weight", (x.channels, 1, kernel, kernel), 0.05)
    attributes = {
        "kernel_shape": (kernel, kernel),
        "strides": (2, 2),
        "pads": (edge,) * 4,
        "group": out,
    }
    value = layers.net.op("ConvTranspose", name, [x.value, weight], attributes)
    return Map(value, out, 2 * x.height, 2 * x.width)


def fire(layers: Layers, x: Map, squeezed: int, expanded: int) -> Map:
    """SqueezeNet's block: a 1 x 1 convolution, then a 1 x 1 and a 3 x 3 one, joined."""
    h = layers.conv(x, squeezed, norm=False)
    wide = [layers.conv(h, expanded, kernel, norm=False) for kernel in (1, 3)]
    return layers.concat(*wide)


def _boxes(
    layers: Layers, maps: Sequence[Map], anchors: Sequence[int], classes: int, *, kernel: int
) -> ir.Model:
    """Boxes and scores of all maps."""
    heads = []
    for x, count in zip(maps, anchors, strict=True):
        sides = layers.conv(x, 4 * count, kernel, norm=False, act=NONE)
        scores = layers.conv(x, classes * count, kernel, norm=False, act=NONE)
        heads.append(layers.concat(sides, scores))
    return layers.anchors(heads, classes + 4)
