"""Detectors of a quarter of a million parameters: Yolo-Fastest 1.1, Yolo-FastestV2, FastestDet.

Source: the author's code (dog-qiuqiu), without what suppresses overlaps, as ncnn's benchmark has
them. The first is of inverted residuals, the others stand on a narrow ShuffleNet V2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from coexec.zoo.layers import LEAKY, NONE, RELU, SIGMOID, Layers, Map
from coexec.zoo.shufflenet import shuffled
from coexec.zoo.yolo import ANCHORS


@dataclass(frozen=True)
class Step:
    """An inverted residual with a stride, and ``blocks`` behind it that are added to their input.

    ``inside`` are the channels of the first one's depthwise convolution and of the blocks'.
    """

    inside: tuple[int, int]
    stride: int
    out: int
    blocks: int


STEPS = (
    Step((8, 8), 1, 4, 1),
    Step((24, 32), 2, 8, 2),
    Step((32, 48), 2, 8, 2),
    Step((48, 96), 1, 16, 4),
    Step((96, 136), 2, 24, 4),
    Step((136, 224), 2, 48, 5),
)
POOLS, NECK = (9, 5, 3), 96
"""Of the first detector: sizes of the pools behind the last step; channels behind these."""
STAGES = ((4, 48), (8, 96), (4, 192))
"""Of the others: units and channels of each stage."""
TOWERS, SPREAD = 72, 96
"""Channels of the second detector's heads and of the third one's."""


def yolo_fastest(
    batch: int | None = None, classes: int = 80, *, image_size: int = 320, seed: int = 0
) -> ir.Model:
    """Version 1.1: (N, 3, size, size) -> (N, boxes, classes + 5)."""
    layers = Layers("yolo_fastest", batch, (3, image_size, image_size), seed, LEAKY)
    x, found = layers.conv(layers.x, 8, 3, stride=2), []
    for step in STEPS:
        x = _inverted(layers, x, step.inside[0], step.out, step.stride)
        for _ in range(step.blocks):
            x = layers.add(_inverted(layers, x, step.inside[1], step.out), x)
        found.append(x)
    pools = [layers.max_pool(x, size, 1, size // 2) for size in POOLS]
    deep = layers.conv(layers.concat(*pools, x), NECK)
    fine = layers.concat(layers.resize(deep, 2), found[-2])
    each = classes + 5
    towers = [_tower(layers, x, x.channels) for x in (deep, fine)]
    heads = [layers.conv(x, ANCHORS * each, norm=False, act=NONE) for x in towers]
    return layers.anchors(heads, each)


def yolo_fastest_v2(
    batch: int | None = None, classes: int = 80, *, image_size: int = 352, seed: int = 0
) -> ir.Model:
    """Three boxes of each place share its scores.

    (N, 3, size, size) -> (N, places, classes + 15).
    """
    layers = Layers("yolo_fastest_v2", batch, (3, image_size, image_size), seed)
    _, middle, deep = _features(layers)
    fine = layers.conv(layers.concat(layers.resize(deep, 2), middle), TOWERS)
    heads = [_shared_head(layers, x, classes) for x in (fine, layers.conv(deep, TOWERS))]
    return layers.anchors(heads, 5 * ANCHORS + classes)


def fastest_det(
    batch: int | None = None, classes: int = 80, *, image_size: int = 352, seed: int = 0
) -> ir.Model:
    """One box at each of a single map's places: (N, 3, size, size) -> (N, classes + 5, h, w)."""
    layers = Layers("fastest_det", batch, (3, image_size, image_size), seed)
    fine, middle, deep = _features(layers)
    x = layers.concat(layers.average_pool(fine, 3, 2, 1), middle, layers.resize(deep, 2))
    x = layers.conv(x, SPREAD)
    found = []
    for count in (1, 2, 3):
        h = x
        for _ in range(count):
            h = layers.depthwise(h, 5)
        found.append(h)
    h = layers.conv(layers.concat(*found), SPREAD, act=NONE)
    x = layers.conv(layers.activate(layers.add(x, h), RELU), SPREAD)
    scores, sides, object_ = (
        layers.conv(layers.depthwise(x, 5), out, act=NONE) for out in (classes, 4, 1)
    )
    object_ = layers.activate(object_, SIGMOID)
    return layers.finish(layers.concat(object_, sides, _likelihoods(layers, scores)))


def _inverted(layers: Layers, x: Map, inside: int, out: int, stride: int = 1) -> Map:
    h = layers.depthwise(layers.conv(x, inside), 3, stride=stride)
    return layers.conv(h, out, act=NONE)


def _tower(layers: Layers, x: Map, out: int) -> Map:
    """Two separable convolutions of 5 x 5, activated in between alone."""
    for _ in range(2):
        x = layers.conv(layers.depthwise(x, 5), out, act=NONE)
    return x


def _features(layers: Layers) -> list[Map]:
    """Maps of an eighth, a sixteenth and a thirty-second of the size."""
    x = layers.max_pool(layers.conv(layers.x, 24, 3, stride=2), 3, 2, 1)
    found = []
    for units, out in STAGES:
        kept = layers.conv(layers.depthwise(x, 3, stride=2, act=NONE), out // 2)
        x = layers.concat(kept, _branch(layers, x, out // 2, 2))
        for _ in range(units - 1):
            kept, h = layers.split(shuffled(layers, x), out // 2, out // 2)
            x = layers.concat(kept, _branch(layers, h, out // 2, 1))
        found.append(x)
    return found


def _branch(layers: Layers, x: Map, out: int, stride: int) -> Map:
    h = layers.depthwise(layers.conv(x, out), 3, stride=stride, act=NONE)
    return layers.conv(h, out)


def _shared_head(layers: Layers, x: Map, classes: int) -> Map:
    """Sides of boxes from one tower, what there is from the other."""
    seen, placed = (_tower(layers, x, x.channels) for _ in range(2))
    sides = layers.conv(placed, 4 * ANCHORS, norm=False, act=SIGMOID)
    object_ = layers.conv(seen, ANCHORS, norm=False, act=SIGMOID)
    scores = layers.conv(seen, classes, norm=False, act=NONE)
    return layers.concat(sides, object_, _likelihoods(layers, scores))


def _likelihoods(layers: Layers, x: Map) -> Map:
    value = layers.net.op("Softmax", layers.name("softmax"), [x.value], {"axis": 1})
    return replace(x, value=value)
