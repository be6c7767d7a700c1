"""SalsaNext, which names what the points of a lidar's turn belong to.

Source: Cortinhal et al., "SalsaNext: Fast, uncertainty-aware semantic segmentation of LiDAR point
clouds", 2020. Normalisation stands behind activations.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import LEAKY, NONE, Layers, Map

BASE, DOWN, UP = 32, (64, 128, 256, 256, 256), (128, 128, 64, 32)
"""Channels of the context, of each stage down and of each stage up."""


def salsanext(
    batch: int | None = None,
    classes: int = 20,
    *,
    height: int = 64,
    width: int = 2048,
    seed: int = 0,
) -> ir.Model:
    """Distance, place and remission (N, 5, height, width) -> shares (N, classes, height, width)."""
    layers = Layers("salsanext", batch, (5, height, width), seed, LEAKY)
    x = layers.x
    for _ in range(3):
        x = layers.conv(x, BASE, norm=False)
        h = _normed(layers, _normed(layers, x, BASE, 3), BASE, 3, dilation=2)
        x = layers.add(x, h)
    kept = []
    for stage, out in enumerate(DOWN):
        beside = layers.conv(x, out, norm=False)
        x = layers.add(beside, _threefold(layers, x, out))
        if stage < len(DOWN) - 1:
            kept.append(x)
            x = layers.average_pool(x, 3, 2, 1)
    for beside, out in zip(reversed(kept), UP, strict=True):
        x = _threefold(layers, layers.concat(layers.pixel_shuffle(x, 2), beside), out)
    x = layers.conv(x, classes, norm=False, act=NONE)
    share = layers.net.op("Softmax", "share", [x.value], {"axis": 1})
    return layers.net.finish(share, classes, x.height, x.width)


def _normed(layers: Layers, x: Map, out: int, kernel: int, *, dilation: int = 1) -> Map:
    return layers.norm(layers.conv(x, out, kernel, dilation=dilation, norm=False))


def _threefold(layers: Layers, x: Map, out: int) -> Map:
    """Three convolutions one behind the other that look further and further, all joined."""
    first = _normed(layers, x, out, 3)
    second = _normed(layers, first, out, 3, dilation=2)
    third = _normed(layers, second, out, 2, dilation=2)
    return _normed(layers, layers.concat(first, second, third), out, 1)
