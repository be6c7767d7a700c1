"""One-stage detectors of the YOLO family by other authors: YOLOv10, YOLOv4 tiny.

Sources: Wang et al., "YOLOv10: Real-time end-to-end object detection", 2024 (nano, the head that
needs no suppression of overlaps, its 7 x 7 convolutions as one); Wang et al., "Scaled-YOLOv4", 2021
(tiny).
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import LEAKY, NONE, SILU, Layers, Map
from coexec.zoo.yolo import ANCHORS, heads_free
from coexec.zoo.yolo_blocks import attention_stage, c2f, sppf


def yolov10n(
    batch: int | None = None, classes: int = 80, *, image_size: int = 640, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, places, classes + 4)."""
    layers = Layers("yolov10n", batch, (3, image_size, image_size), seed, SILU)
    x = layers.conv(layers.conv(layers.x, 16, 3, stride=2), 32, 3, stride=2)
    x = c2f(layers, x, 32, 1)
    found = []
    for depth, out in ((2, 64), (2, 128), (1, 256)):
        halved = layers.conv(x, out, 3, stride=2) if out == 64 else _halved(layers, x, out)
        x = c2f(layers, halved, out, depth)
        found.append(x)
    deep = attention_stage(layers, sppf(layers, x, 256))
    middle = c2f(layers, layers.concat(layers.resize(deep, 2), found[1]), 128, 1, added=False)
    fine = c2f(layers, layers.concat(layers.resize(middle, 2), found[0]), 64, 1, added=False)
    down = layers.concat(layers.conv(fine, 64, 3, stride=2), middle)
    middle = c2f(layers, down, 128, 1, added=False)
    deep = _compact(layers, layers.concat(_halved(layers, middle, 128), deep), 256)
    heads = heads_free(layers, [fine, middle, deep], classes, light=True)
    return layers.anchors(heads, classes + 4)


def yolov4_tiny(
    batch: int | None = None, classes: int = 80, *, image_size: int = 416, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, boxes, classes + 5)."""
    layers = Layers("yolov4_tiny", batch, (3, image_size, image_size), seed, LEAKY)
    x = layers.conv(layers.conv(layers.x, 32, 3, stride=2), 64, 3, stride=2)
    fine = x
    for width in (64, 128, 256):
        x, fine = _partial(layers, x, width)
        x = layers.max_pool(x, 2, 2)
    x = layers.conv(layers.conv(x, 512, 3), 256)
    each = classes + 5
    deep = layers.conv(layers.conv(x, 512, 3), ANCHORS * each, norm=False, act=NONE)
    up = layers.concat(layers.resize(layers.conv(x, 128), 2), fine)
    wide = layers.conv(layers.conv(up, 256, 3), ANCHORS * each, norm=False, act=NONE)
    return layers.anchors([deep, wide], each)


def focused(layers: Layers) -> Map:
    """Blocks of 2 x 2 pixels as channels."""
    x, name = layers.x, layers.name("focus")
    value = layers.net.op("SpaceToDepth", name, [x.value], {"blocksize": 2})
    return Map(value, 4 * x.channels, x.height // 2, x.width // 2)


def _halved(layers: Layers, x: Map, out: int) -> Map:
    """YOLOv10: channels first, then half of the size by a depthwise convolution."""
    return layers.depthwise(layers.conv(x, out), 3, stride=2, act=NONE)


def _compact(layers: Layers, x: Map, out: int) -> Map:
    """As ``c2f``, its bottleneck of depthwise convolutions, one of them 7 x 7 (YOLOv10)."""
    half = out // 2
    kept, last = layers.split(layers.conv(x, out), half, half)
    h = layers.conv(layers.depthwise(last, 3), 2 * half)
    h = layers.conv(layers.depthwise(h, 7), half)
    h = layers.add(layers.depthwise(h, 3), last)
    return layers.conv(layers.concat(kept, last, h), out)


def _partial(layers: Layers, x: Map, width: int) -> tuple[Map, Map]:
    """A block on half of the channels (CSP): its result joined to its input, and on its own."""
    h = layers.conv(x, width, 3)
    half = layers.split(h, width // 2, width // 2)[1]
    first = layers.conv(half, width // 2, 3)
    second = layers.conv(first, width // 2, 3)
    inner = layers.conv(layers.concat(second, first), width)
    return layers.concat(h, inner), inner
