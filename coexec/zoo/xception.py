"""Xception: separable convolutions beside shortcuts.

Source: Chollet, "Xception: Deep learning with depthwise separable convolutions", 2017.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import NONE, RELU, Layers, Map

ENTRY, MIDDLE, BLOCKS = (128, 256, 728), 728, 8
"""Channels of the first blocks, those of the middle and how many of these there are."""


def xception(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 299, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("xception", batch, (3, image_size, image_size), seed)
    x = layers.conv(layers.conv(layers.x, 32, 3, stride=2, pad=0), 64, 3, pad=0)
    for place, out in enumerate(ENTRY):
        x = _halved(layers, x, (out, out), activated=place > 0)
    for _ in range(BLOCKS):
        h = x
        for _ in range(3):
            h = _separable(layers, layers.activate(h, RELU), MIDDLE)
        x = layers.add(h, x)
    x = _halved(layers, x, (MIDDLE, 1024))
    for out in (1536, 2048):
        x = layers.activate(_separable(layers, x, out), RELU)
    return layers.logits(x, classes)


def _halved(layers: Layers, x: Map, widths: tuple[int, int], *, activated: bool = True) -> Map:
    """Two separable convolutions and a pool; the first block's input is activated before."""
    h = x
    for place, out in enumerate(widths):
        h = layers.activate(h, RELU) if place or activated else h
        h = _separable(layers, h, out)
    h = layers.max_pool(h, 3, 2, 1)
    return layers.add(h, layers.conv(x, h.channels, stride=2, pad=0, act=NONE))


def _separable(layers: Layers, x: Map, out: int) -> Map:
    h = layers.depthwise(x, 3, norm=False, bias=False, act=NONE)
    return layers.conv(h, out, act=NONE)
