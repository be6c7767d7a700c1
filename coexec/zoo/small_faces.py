"""MobileFaceNet, features of a face, and Ultra-Light-Fast, which finds faces.

Sources: Chen et al., "MobileFaceNets: Efficient CNNs for accurate real-time face verification on
mobile devices", 2018; Linzaer, "Ultra-Light-Fast-Generic-Face-Detector-1MB", 2019, slim or with a
block of dilated convolutions.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from coexec.zoo.layers import NONE, PRELU, RELU, Layers, Map

BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))
"""Expansion, channels, blocks and first stride."""
WIDE = 512
ANCHORS = (3, 2, 2, 3)
"""Boxes of each place of the four maps."""
DILATIONS = (2, 3, 5)
"""Of the branches of the block that is not in the slim network."""
REST = 0.1
"""How much of that block is added."""


def mobile_face_net(
    batch: int | None = None, classes: int = 128, *, image_size: int = 112, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> features (N, classes)."""
    layers = Layers("mobile_face_net", batch, (3, image_size, image_size), seed, PRELU)
    x = layers.depthwise(layers.conv(layers.x, 64, 3, stride=2), 3)
    for expansion, out, blocks, stride in BOTTLENECKS:
        for block in range(blocks):
            h = layers.conv(x, expansion * x.channels)
            h = layers.depthwise(h, 3, stride=1 if block else stride)
            h = layers.conv(h, out, act=NONE)
            x = layers.add(h, x) if h.channels == x.channels and h.height == x.height else h
    x = layers.conv(x, WIDE)
    x = layers.conv(x, WIDE, (x.height, x.width), pad=0, groups=WIDE, act=NONE)
    x = layers.conv(x, classes, act=NONE)
    flat = layers.net.op("Flatten", "flatten", [x.value], {"axis": 1})
    return layers.net.finish(flat, classes)


def ultra_face(
    batch: int | None = None,
    classes: int = 2,
    *,
    height: int = 240,
    width: int = 320,
    slim: bool = False,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, height, width) -> (N, boxes, classes + 4)."""
    layers = Layers("ultra_face", batch, (3, height, width), seed, RELU)
    x = layers.conv(layers.x, 16, 3, stride=2)
    for out, stride in ((32, 1), (32, 2), (32, 1), (64, 2), (64, 1), (64, 1)):
        x = _separable(layers, x, out, stride)
    x = _separable(layers, x, 64, 1) if slim else _dilated(layers, x)
    found = [x]
    for widths in ((128, 128, 128), (256, 256)):
        for place, out in enumerate(widths):
            x = _separable(layers, x, out, 1 if place else 2)
        found.append(x)
    h = layers.conv(x, 64, norm=False)
    h = layers.depthwise(h, 3, stride=2, norm=False)
    found.append(layers.conv(h, 256, norm=False))
    heads = []
    for place, (each, count) in enumerate(zip(found, ANCHORS, strict=True)):
        last = place == len(found) - 1
        parts = (_head(layers, each, values * count, last) for values in (4, classes))
        heads.append(layers.concat(*parts))
    return layers.anchors(heads, classes + 4)


def _separable(layers: Layers, x: Map, out: int, stride: int) -> Map:
    return layers.conv(layers.depthwise(x, 3, stride=stride), out)


def _head(layers: Layers, x: Map, out: int, last: bool) -> Map:
    """A 3 x 3 convolution at the last map, separable ones at the others."""
    if last:
        return layers.conv(x, out, 3, norm=False, act=NONE)
    h = layers.depthwise(x, 3, norm=False)
    return layers.conv(h, out, norm=False, act=NONE)


def _dilated(layers: Layers, x: Map) -> Map:
    """Three branches of more and more dilated convolutions, joined and added in part."""
    inside = x.channels // 8
    found = []
    for place, dilation in enumerate(DILATIONS):
        h = layers.conv(x, inside, act=NONE)
        if place == len(DILATIONS) - 1:
            h = layers.conv(h, inside // 2 * 3, 3)
        h = layers.conv(h, 2 * inside, 3)
        found.append(layers.conv(h, 2 * inside, 3, dilation=dilation, act=NONE))
    h = layers.conv(layers.concat(*found), x.channels, act=NONE)
    name = layers.name("scale")
    factor = layers.net.constant(f"{name}.value", REST, "float32")
    h = replace(h, value=layers.net.op("Mul", name, [h.value, factor]))
    return layers.activate(layers.add(h, layers.conv(x, x.channels, act=NONE)), RELU)
