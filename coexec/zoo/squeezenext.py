"""SqueezeNext.

Source: Gholami et al., "SqueezeNext: Hardware-aware neural network design", 2018. Sizes as in the
pytorchcv collection.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import RELU, Layers, Map

BLOCKS, LATER = (6, 6, 8, 1), (2, 4, 14, 1)
"""Blocks of each stage, and of the fifth version, which has more where images are small."""
STEM, WIDTH, HEAD = 64, 32, 128


def squeezenext(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    width: float = 1.0,
    later: bool = False,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes), all channels times ``width``; ``later``: version 5."""
    layers = Layers("squeezenext", batch, (3, image_size, image_size), seed)
    x = layers.conv(layers.x, int(STEM * width), 7, stride=2, pad=1, bias=True)
    x = layers.max_pool(x, 3, 2, ceil=True)
    for stage, count in enumerate(LATER if later else BLOCKS):
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            x = _block(layers, x, int((WIDTH << stage) * width), stride)
    return layers.logits(layers.conv(x, int(HEAD * width), bias=True), classes)


def _block(layers: Layers, x: Map, out: int, stride: int) -> Map:
    """Squeezed twice, then a 3 x 3 convolution in two halves, beside a shortcut."""
    parts = 1 if stride == 2 else 4 if x.channels > out else 2
    inside = x.channels // parts
    h = layers.conv(x, inside, stride=stride, pad=0, bias=True)
    h = layers.conv(h, inside // 2, bias=True)
    h = layers.conv(h, inside, (1, 3), bias=True)
    h = layers.conv(h, inside, (3, 1), bias=True)
    h = layers.conv(h, out, bias=True)
    if stride == 2 or x.channels > out:
        x = layers.conv(x, out, stride=stride, pad=0, bias=True)
    return layers.activate(layers.add(h, x), RELU)
