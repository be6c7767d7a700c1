"""Depth from one image: MiDaS v2.1, small.

Source: Ranftl et al., "Towards robust monocular depth estimation", 2020; its backbone is
EfficientNet-Lite3 (Liu, "EfficientNet-Lite", 2020): no excitation, the ends not scaled.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from coexec.zoo.efficientnet import B0, stage_of
from coexec.zoo.layers import NONE, RELU, RELU6, Layers, Map

WIDTHS, KEPT = (64, 128, 256, 512), (1, 2, 4, 6)
"""Channels of the decoder by size; stages of the backbone that it starts from."""


def midas_small(
    batch: int | None = None, classes: int = 1, *, image_size: int = 256, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes, size, size)."""
    layers = Layers("midas_small", batch, (3, image_size, image_size), seed, RELU6)
    x = layers.conv(layers.x, 32, 3, stride=2)
    found = []
    for place, stage in enumerate(B0):
        scaled = replace(stage.scaled(1.2, 1.4), excited=False)
        if place in {0, len(B0) - 1}:
            scaled = replace(scaled, blocks=stage.blocks)
        x = stage_of(layers, x, scaled)
        if place in KEPT:
            found.append(x)
    layers.act = RELU
    sized = [
        layers.conv(each, width, 3, norm=False, bias=False, act=NONE)
        for each, width in zip(found, WIDTHS, strict=True)
    ]
    x = _fused(layers, sized[3], None, WIDTHS[2])
    for place in (2, 1, 0):
        x = _fused(layers, x, sized[place], WIDTHS[max(place - 1, 0)])
    x = layers.resize(layers.conv(x, 32, 3, norm=False, act=NONE), 2, linear=True)
    return layers.finish(layers.conv(layers.conv(x, 32, 3, norm=False), classes, norm=False))


def _fused(layers: Layers, x: Map, beside: Map | None, out: int) -> Map:
    if beside is not None:
        x = layers.add(x, _refined(layers, beside))
    x = layers.resize(_refined(layers, x), 2, linear=True)
    return layers.conv(x, out, norm=False, act=NONE)


def _refined(layers: Layers, x: Map) -> Map:
    h = layers.conv(layers.activate(x, RELU), x.channels, 3, norm=False)
    return layers.add(layers.conv(h, x.channels, 3, norm=False, act=NONE), x)
