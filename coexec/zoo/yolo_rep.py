"""YOLOv6 3.0, nano and small: plain convolutions, as its branches become when the training is over.

Source: Li et al., "YOLOv6 v3.0: A full-scale reloading", 2023, without distillation's bins.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import NONE, RELU, SIGMOID, SILU, Layers, Map

STAGES = ((32, 2), (64, 4), (128, 6), (256, 2))
"""Channels of each stage of the nano network, and convolutions behind its first one."""
BLOCKS = 4
"""Convolutions in each joint of the neck."""


def yolov6n(
    batch: int | None = None, classes: int = 80, *, image_size: int = 640, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, places, classes + 4)."""
    layers = Layers("yolov6n", batch, (3, image_size, image_size), seed, RELU)
    return _network(layers, 1, classes)


def yolov6s(
    batch: int | None = None, classes: int = 80, *, image_size: int = 640, seed: int = 0
) -> ir.Model:
    """Twice as wide: (N, 3, size, size) -> (N, places, classes + 4)."""
    layers = Layers("yolov6s", batch, (3, image_size, image_size), seed, RELU)
    return _network(layers, 2, classes)


def _network(layers: Layers, times: int, classes: int) -> ir.Model:
    x, found = _rep(layers, layers.x, 16 * times, 1, stride=2), []
    for channels, blocks in STAGES:
        out = channels * times
        x = _rep(layers, _rep(layers, x, out, 1, stride=2), out, blocks)
        found.append(x)
    second, third, fourth, deep = found
    wide, narrow = 64 * times, 32 * times
    deep = layers.conv(_pooled(layers, deep), wide)
    middle = _rep(layers, _joined(layers, (deep, fourth, third), wide), wide, BLOCKS)
    middle = layers.conv(middle, narrow)
    fine = _rep(layers, _joined(layers, (middle, third, second), narrow), narrow, BLOCKS)
    maps = [fine]
    for beside, out in ((middle, wide), (deep, 2 * wide)):
        down = layers.conv(maps[-1], beside.channels, 3, stride=2)
        maps.append(_rep(layers, layers.concat(down, beside), out, BLOCKS))
    return layers.anchors([_head(layers, x, classes) for x in maps], classes + 4)


def _rep(layers: Layers, x: Map, out: int, count: int, *, stride: int = 1) -> Map:
    """3 x 3 convolutions with a bias, that normalisation and branches were folded into."""
    for _ in range(count):
        x = layers.conv(x, out, 3, stride=stride, norm=False)
    return x


def _pooled(layers: Layers, x: Map) -> Map:
    half = x.channels // 2
    h = layers.conv(layers.conv(layers.conv(x, half), half, 3), half)
    found = [h]
    for _ in range(3):
        found.append(layers.max_pool(found[-1], 5, 1, 2))
    h = layers.conv(layers.conv(layers.concat(*found), half), half, 3)
    return layers.conv(layers.concat(layers.conv(x, half), h), x.channels)


def _joined(layers: Layers, maps: tuple[Map, Map, Map], out: int) -> Map:
    """A map of half of the size, one of the size and one of twice the size."""
    small, like, large = maps
    down = layers.conv(layers.conv(large, out), out, 3, stride=2)
    return layers.conv(
        layers.concat(layers.transposed(small, out, act=NONE), layers.conv(like, out), down), out
    )


def _head(layers: Layers, x: Map, classes: int) -> Map:
    h = layers.conv(x, x.channels, act=SILU)
    scores = layers.conv(h, h.channels, 3, act=SILU)
    scores = layers.conv(scores, classes, norm=False, act=SIGMOID)
    boxes = layers.conv(layers.conv(h, h.channels, 3, act=SILU), 4, norm=False, act=NONE)
    return layers.concat(boxes, scores)
