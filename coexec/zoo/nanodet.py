"""NanoDet-m: a detector without anchors on ShuffleNet V2, whose maps are joined by sums alone.

Source: RangiLyu's code (NanoDet, 2020), version 0 at 320 x 320, as ncnn's benchmark has it.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import LEAKY, NONE, SIGMOID, Layers, Map
from coexec.zoo.shufflenet import stages_v2

WIDTH, BINS = 96, 8
"""Channels of the neck and the heads; distances of a box's side that are told apart."""


def nanodet_m(
    batch: int | None = None, classes: int = 80, *, image_size: int = 320, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, places, classes + 32)."""
    layers = Layers("nanodet_m", batch, (3, image_size, image_size), seed, LEAKY)
    maps = [layers.conv(x, WIDTH, norm=False, act=NONE) for x in stages_v2(layers)]
    for place in (1, 0):
        maps[place] = layers.add(maps[place], layers.resize(maps[place + 1], 2, linear=True))
    for place in (1, 2):
        maps[place] = layers.add(maps[place], layers.resize(maps[place - 1], 0.5, linear=True))
    heads = [_head(layers, x, classes) for x in maps]
    return layers.anchors(heads, classes + 4 * BINS)


def _head(layers: Layers, x: Map, classes: int) -> Map:
    for _ in range(2):
        x = layers.conv(layers.depthwise(x, 3), WIDTH)
    x = layers.conv(x, classes + 4 * BINS, norm=False, act=NONE)
    scores, sides = layers.split(x, classes, 4 * BINS)
    return layers.concat(layers.activate(scores, SIGMOID), sides)
