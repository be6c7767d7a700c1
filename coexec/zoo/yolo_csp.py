"""YOLOR-P6: a detector of four sizes, of stages that pass half of their channels by.

Source: Wang et al., "You only learn one representation: Unified network for multiple tasks", 2021,
in the authors' file of layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from coexec.zoo.layers import NONE, SILU, Layers, Map
from coexec.zoo.yolo import ANCHORS
from coexec.zoo.yolo_variants import focused

STAGES = ((128, 3), (256, 7), (384, 7), (512, 3), (640, 3))
"""Channels and residual blocks of each stage."""
TOPS, WIDE = (256, 192, 128), 320
"""Channels of the neck, from the second deepest map on, and of the deepest one."""
BLOCKS = 3
"""Blocks of two convolutions in each joint of the neck."""


def yolor_p6(
    batch: int | None = None, classes: int = 80, *, image_size: int = 640, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, boxes, classes + 5)."""
    layers = Layers("yolor_p6", batch, (3, image_size, image_size), seed, SILU)
    x, found = layers.conv(focused(layers), 64, 3), []
    for out, blocks in STAGES:
        x = _residual_stage(layers, layers.conv(x, out, 3, stride=2), blocks)
        found.append(x)
    tops = [_pooled(layers, x)]
    for beside, out in zip(reversed(found[1:-1]), TOPS, strict=True):
        up = layers.resize(layers.conv(tops[-1], out), 2)
        tops.append(_joint(layers, (layers.conv(beside, out), up), out))
    maps = [tops[-1]]
    for beside in reversed(tops[:-1]):
        down = layers.conv(maps[-1], beside.channels, 3, stride=2)
        maps.append(_joint(layers, (down, beside), beside.channels))
    each = classes + 5
    return layers.anchors([_head(layers, x, ANCHORS * each) for x in maps], each)


def _residual_stage(layers: Layers, x: Map, blocks: int) -> Map:
    half = x.channels // 2
    beside, h = layers.conv(x, half), layers.conv(x, half)
    for _ in range(blocks):
        h = layers.add(layers.conv(layers.conv(h, half), half, 3), h)
    return layers.conv(layers.concat(h, beside), x.channels)


def _pooled(layers: Layers, x: Map) -> Map:
    """Pools of three sizes side by side, beside a 1 x 1 convolution."""
    beside, h = layers.conv(x, WIDE), layers.conv(x, WIDE)
    h = layers.conv(layers.conv(h, WIDE, 3), WIDE)
    pools = [layers.max_pool(h, size, 1, size // 2) for size in (13, 9, 5)]
    h = layers.conv(layers.conv(layers.concat(*pools, h), WIDE), WIDE, 3)
    return layers.conv(layers.concat(h, beside), WIDE)


def _joint(layers: Layers, maps: Sequence[Map], out: int) -> Map:
    """Two maps of one size, joined and convolved beside a 1 x 1 convolution."""
    h = layers.conv(layers.concat(*maps), out)
    beside = layers.conv(h, out)
    for _ in range(BLOCKS):
        h = layers.conv(layers.conv(h, out), out, 3)
    return layers.conv(layers.concat(h, beside), out)


def _head(layers: Layers, x: Map, out: int) -> Map:
    """Boxes and scores, from channels that learned numbers are added to and multiplied with."""
    wide = 2 * x.channels
    h = layers.conv(x, wide, 3)
    h = _learned(layers, h, "Add")
    return _learned(layers, layers.conv(h, out, norm=False, act=NONE), "Mul")


def _learned(layers: Layers, x: Map, op_type: str) -> Map:
    name = layers.name("learned")
    known = layers.net.normal(f"{name}.weight", (x.channels, 1, 1), 0.02)
    return replace(x, value=layers.net.op(op_type, name, [x.value, known]))
