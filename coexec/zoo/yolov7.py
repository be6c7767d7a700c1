"""YOLOv7 at its plain size, its normalisation and the branches of its last convolutions folded.

Source: Wang et al., "YOLOv7: Trainable bag-of-freebies sets new state-of-the-art for real-time
object detectors", 2022, in the authors' file of layers.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import NONE, SILU, Layers, Map
from coexec.zoo.yolo import ANCHORS

STAGES = ((64, 256), (128, 512), (256, 1024), (256, 1024))
"""Channels inside of each stage, and of its result."""


def yolov7(
    batch: int | None = None, classes: int = 80, *, image_size: int = 640, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, boxes, classes + 5)."""
    layers = Layers("yolov7", batch, (3, image_size, image_size), seed, SILU)
    x = layers.conv(layers.conv(layers.x, 32, 3), 64, 3, stride=2)
    x = layers.conv(layers.conv(x, 64, 3), 128, 3, stride=2)
    found: list[Map] = []
    for place, (inside, out) in enumerate(STAGES):
        x = _aggregated(layers, _halved(layers, x, x.channels // 2) if place else x, inside, out)
        found.append(x)
    deep = _pooled(layers, x, 512)
    middle = _joint(layers, _enlarged(layers, deep, found[2], 256), 256)
    fine = _joint(layers, _enlarged(layers, middle, found[1], 128), 128)
    maps = [fine]
    for beside in (middle, deep):
        down = _halved(layers, maps[-1], maps[-1].channels)
        maps.append(_joint(layers, layers.concat(down, beside), beside.channels))
    each = classes + 5
    wide = [layers.conv(x, 2 * x.channels, 3, norm=False) for x in maps]
    heads = [layers.conv(x, ANCHORS * each, norm=False, act=NONE) for x in wide]
    return layers.anchors(heads, each)


def _aggregated(layers: Layers, x: Map, inside: int, out: int) -> Map:
    """Four 3 x 3 convolutions, of which every second result is joined (ELAN)."""
    found = [layers.conv(x, inside), layers.conv(x, inside)]
    h = found[-1]
    for _ in range(2):
        h = layers.conv(layers.conv(h, inside, 3), inside, 3)
        found.append(h)
    return layers.conv(layers.concat(*reversed(found)), out)


def _joint(layers: Layers, x: Map, out: int) -> Map:
    """Four 3 x 3 convolutions, all of whose results are joined."""
    found = [layers.conv(x, out), layers.conv(x, out)]
    for _ in range(4):
        found.append(layers.conv(found[-1], out // 2, 3))
    return layers.conv(layers.concat(*reversed(found)), out)


def _halved(layers: Layers, x: Map, out: int) -> Map:
    """Half of the size by a pool and by a convolution, joined."""
    pooled = layers.conv(layers.max_pool(x, 2, 2), out)
    convolved = layers.conv(layers.conv(x, out), out, 3, stride=2)
    return layers.concat(convolved, pooled)


def _enlarged(layers: Layers, x: Map, beside: Map, out: int) -> Map:
    return layers.concat(layers.conv(beside, out), layers.resize(layers.conv(x, out), 2))


def _pooled(layers: Layers, x: Map, out: int) -> Map:
    """Pools of three sizes side by side, beside a 1 x 1 convolution."""
    h = layers.conv(layers.conv(layers.conv(x, out), out, 3), out)
    pools = [layers.max_pool(h, size, 1, size // 2) for size in (5, 9, 13)]
    h = layers.conv(layers.conv(layers.concat(h, *pools), out), out, 3)
    return layers.conv(layers.concat(h, layers.conv(x, out)), out)
