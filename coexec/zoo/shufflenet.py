"""ShuffleNet V2 at full width. Source: Ma et al., "ShuffleNet V2: Practical guidelines", 2018."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from coexec.zoo.layers import NONE, Layers, Map

STAGES = ((4, 116), (8, 232), (4, 464))
"""Units and channels of each stage."""


def shufflenet_v2(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("shufflenet_v2", batch, (3, image_size, image_size), seed)
    x = layers.max_pool(layers.conv(layers.x, 24, 3, stride=2), 3, 2, 1)
    for units, out in STAGES:
        for unit in range(units):
            x = _unit(layers, x, out, strided=unit == 0)
    return layers.logits(layers.conv(x, 1024), classes)


def _unit(layers: Layers, x: Map, out: int, *, strided: bool) -> Map:
    half = out // 2
    if strided:
        kept = layers.conv(layers.depthwise(x, 3, stride=2, act=NONE), half)
        h = x
    else:
        kept, h = layers.split(x, half, half)
    h = layers.depthwise(layers.conv(h, half), 3, stride=2 if strided else 1, act=NONE)
    return _shuffled(layers, layers.concat(kept, layers.conv(h, half)))


def _shuffled(layers: Layers, x: Map) -> Map:
    """Channels of both halves take turns."""
    net, name = layers.net, layers.name("shuffle")
    apart = net.constant(f"{name}.apart", (0, 2, x.channels // 2, x.height, x.width), "int64")
    value = net.op("Reshape", f"{name}.halves", [x.value, apart])
    value = net.op("Transpose", name, [value], {"perm": (0, 2, 1, 3, 4)})
    together = net.constant(f"{name}.together", (0, x.channels, x.height, x.width), "int64")
    return replace(x, value=net.op("Reshape", f"{name}.channels", [value, together]))
