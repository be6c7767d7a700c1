"""PP-LCNet of any width: separable convolutions for CPUs of one kind.

Source: Cui et al., "PP-LCNet: A lightweight CPU convolutional neural network", 2021.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import HARDSIGMOID, HARDSWISH, Layers, Map, divisible

STEM, LAST = 16, 1280
BLOCKS = (
    (3, 1, 32),
    (3, 2, 64),
    (3, 1, 64),
    (3, 2, 128),
    (3, 1, 128),
    (3, 2, 256),
    *((5, 1, 256),) * 5,
    (5, 2, 512),
    (5, 1, 512),
)
"""Kernel, stride and channels of each separable convolution."""
EXCITED = 2
"""So many of the last ones are squeezed and excited."""


def lcnet(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    width: float = 1.0,
    seed: int = 0,
) -> ir.Model:
    """All channels but the last times ``width``: (N, 3, size, size) -> (N, classes)."""
    layers = Layers("lcnet", batch, (3, image_size, image_size), seed, HARDSWISH)
    x = layers.conv(layers.x, divisible(STEM * width), 3, stride=2)
    for place, (kernel, stride, out) in enumerate(BLOCKS):
        x = layers.depthwise(x, kernel, stride=stride)
        if place >= len(BLOCKS) - EXCITED:
            x = layers.excite(x, x.channels // 4, gate=HARDSIGMOID)
        x = layers.conv(x, divisible(out * width))
    return layers.logits(_last(layers, x), classes, drop=0.2)


def _last(layers: Layers, x: Map) -> Map:
    """More features of the mean of all pixels."""
    return layers.conv(layers.squeeze(x), LAST, norm=False, bias=False)
