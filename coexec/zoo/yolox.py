"""YOLOX of all sizes: one place, one box, and a head of its own for boxes and for scores.

Source: Ge et al., "YOLOX: Exceeding YOLO series in 2021", 2021.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import NONE, SIGMOID, SILU, Layers, Map
from coexec.zoo.yolo_variants import focused

POOLS = (5, 9, 13)
"""Sizes of the pools behind the last stage."""
STAGES = ((128, 3), (256, 9), (512, 9), (1024, 3))
"""Channels and bottlenecks of each stage of the large network."""
STEM, HEAD = 64, 256


def yolox_s(
    batch: int | None = None, classes: int = 80, *, image_size: int = 640, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, places, classes + 5)."""
    layers = Layers("yolox_s", batch, (3, image_size, image_size), seed, SILU)
    return _network(layers, 1 / 3, 0.5, classes, separable=False)


def yolox(
    batch: int | None = None,
    classes: int = 80,
    *,
    image_size: int = 640,
    depth: float = 1.0,
    width: float = 1.0,
    separable: bool = False,
    seed: int = 0,
) -> ir.Model:
    """Large, or times ``depth`` and ``width``; ``separable``, the nano network's convolutions.

    (N, 3, size, size) -> (N, places, classes + 5).
    """
    layers = Layers("yolox", batch, (3, image_size, image_size), seed, SILU)
    return _network(layers, depth, width, classes, separable=separable)


def _network(
    layers: Layers, depth: float, width: float, classes: int, *, separable: bool
) -> ir.Model:
    """The neck's blocks are as many as those of the first stage."""
    x, neck = layers.conv(focused(layers), int(STEM * width), 3), max(1, round(3 * depth))
    found = []
    for place, (channels, count) in enumerate(STAGES):
        out, blocks = int(channels * width), neck * (count // 3)
        x = _conv(layers, x, out, stride=2, separable=separable)
        last = place == len(STAGES) - 1
        x = _joint(layers, _pooled(layers, x) if last else x, out, blocks, not last, separable)
        found.append(x)
    tops = [x]
    for beside in reversed(found[1:-1]):
        tops[-1] = layers.conv(tops[-1], beside.channels)
        both = layers.concat(layers.resize(tops[-1], 2), beside)
        tops.append(_joint(layers, both, beside.channels, neck, False, separable))
    maps = [tops.pop()]
    for beside in reversed(tops):
        down = _conv(layers, maps[-1], maps[-1].channels, stride=2, separable=separable)
        both = layers.concat(down, beside)
        maps.append(_joint(layers, both, both.channels, neck, False, separable))
    head = int(HEAD * width)
    heads = [_decoupled(layers, layers.conv(x, head), classes, separable) for x in maps]
    return layers.anchors(heads, classes + 5)


def _conv(layers: Layers, x: Map, out: int, *, stride: int = 1, separable: bool) -> Map:
    if separable:
        return layers.conv(layers.depthwise(x, 3, stride=stride), out)
    return layers.conv(x, out, 3, stride=stride)


def _joint(layers: Layers, x: Map, out: int, blocks: int, added: bool, separable: bool) -> Map:
    """Bottlenecks on half of the channels beside a 1 x 1 convolution."""
    h = layers.conv(x, out // 2)
    for _ in range(blocks):
        inner = _conv(layers, layers.conv(h, out // 2), out // 2, separable=separable)
        h = layers.add(h, inner) if added else inner
    return layers.conv(layers.concat(h, layers.conv(x, out // 2)), out)


def _pooled(layers: Layers, x: Map) -> Map:
    h = layers.conv(x, x.channels // 2)
    pools = [layers.max_pool(h, size, 1, size // 2) for size in POOLS]
    return layers.conv(layers.concat(h, *pools), x.channels)


def _decoupled(layers: Layers, x: Map, classes: int, separable: bool) -> Map:
    """Box, objectness and scores, from two convolutions each for boxes and scores."""
    scores = boxes = x
    for _ in range(2):
        scores = _conv(layers, scores, x.channels, separable=separable)
        boxes = _conv(layers, boxes, x.channels, separable=separable)
    sides = layers.conv(boxes, 4, norm=False, act=NONE)
    there = layers.conv(boxes, 1, norm=False, act=SIGMOID)
    return layers.concat(sides, there, layers.conv(scores, classes, norm=False, act=SIGMOID))
