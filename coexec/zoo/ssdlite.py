"""SSDLite: single-shot detectors whose heads and coarse maps are of separable convolutions.

Sources: Sandler et al., "MobileNetV2: Inverted residuals and linear bottlenecks", 2018, section
6.2; Howard et al., "Searching for MobileNetV3", 2019, section 6.3, as in torchvision: the last
stage has half of its channels. Without what suppresses overlaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from coexec.zoo.layers import HARDSWISH, NONE, RELU6, Layers, Map
from coexec.zoo.mobilenet_v3 import LARGE, STEM, narrowed, widened
from coexec.zoo.single_shot import v2_features

COARSE = (512, 256, 256, 128)
"""Channels of the maps behind the backbone, each half as large as the one before."""
MIDDLE = 12
"""The block of MobileNetV3 whose widened channels are the finest map."""


def ssdlite_mobilenet_v2(
    batch: int | None = None, classes: int = 91, *, image_size: int = 320, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, boxes, classes + 4)."""
    layers = Layers("ssdlite_mobilenet_v2", batch, (3, image_size, image_size), seed, RELU6)
    deep, middle = v2_features(layers)
    return _boxes(layers, [middle, deep], (3, 6, 6, 6, 6, 6), classes)


def ssdlite_mobilenet_v3_large(
    batch: int | None = None, classes: int = 91, *, image_size: int = 320, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, boxes, classes + 4)."""
    layers = Layers("ssdlite_mobilenet_v3_large", batch, (3, image_size, image_size), seed, RELU6)
    x = layers.conv(layers.x, STEM, 3, stride=2, act=HARDSWISH)
    middle = x
    for place, block in enumerate(LARGE):
        if place >= MIDDLE:
            inside = block.inside if place == MIDDLE else block.inside // 2
            block = replace(block, inside=inside, out=block.out // 2)  # noqa: PLW2901
        h = widened(layers, x, block)
        if place == MIDDLE:
            middle = h
        x = narrowed(layers, h, x, block)
    deep = layers.conv(x, 6 * x.channels, act=HARDSWISH)
    return _boxes(layers, [middle, deep], (6,) * 6, classes)


def _boxes(layers: Layers, maps: Sequence[Map], anchors: Sequence[int], classes: int) -> ir.Model:
    """Boxes and scores at each place of the backbone's maps and of coarser ones."""
    found = list(maps)
    for out in COARSE:
        h = layers.depthwise(layers.conv(found[-1], out // 2), 3, stride=2)
        found.append(layers.conv(h, out))
    heads = []
    for x, count in zip(found, anchors, strict=True):
        parts = (
            layers.conv(layers.depthwise(x, 3), count * each, norm=False, act=NONE)
            for each in (4, classes)
        )
        heads.append(layers.concat(*parts))
    return layers.anchors(heads, classes + 4)
