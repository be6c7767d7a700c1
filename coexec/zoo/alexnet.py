"""AlexNet as its paper has it, and the narrower one of 2014.

Sources: Krizhevsky et al., "ImageNet classification with deep convolutional neural networks", 2012,
without the division between two GPUs; Krizhevsky, "One weird trick for parallelizing convolutional
neural networks", 2014.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.builder import dropout, flatten
from coexec.zoo.layers import RELU, Layers, Map

FIRST = (96, (256, 384, 384, 256), 0)
LATER = (64, (192, 384, 256, 256), 2)
"""Channels of the first convolution, of the others, and zeros around the image."""
POOLED = (0, 3)
"""Convolutions after the first with a pool behind them."""
FEATURES = 4096


def alexnet(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    later: bool = False,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes); ``later`` is the network of 2014."""
    layers = Layers("alexnet", batch, (3, image_size, image_size), seed)
    stem, widths, pad = LATER if later else FIRST
    x = layers.conv(layers.x, stem, 11, stride=4, pad=pad, norm=False)
    x = _pool(layers, x, later)
    for place, width in enumerate(widths):
        x = layers.conv(x, width, 5 if place == 0 else 3, norm=False)
        if place in POOLED:
            x = _pool(layers, x, later)
    flat = flatten(layers.net, x.value)
    for wide in (x.channels * x.height * x.width, FEATURES):
        flat = layers.dense(flat, (wide, FEATURES), RELU)
        flat = dropout(layers.net, flat, layers.name("dropout"), 0.5)
    return layers.net.finish(layers.dense(flat, (FEATURES, classes)), classes)


def _pool(layers: Layers, x: Map, later: bool) -> Map:
    """The first network keeps 6 x 6 pixels of 224 x 224: its pools reach beyond the last one."""
    return layers.max_pool(x, 3, 2, ceil=not later)
