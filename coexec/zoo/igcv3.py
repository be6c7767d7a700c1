"""IGCV3.

Source: Sun et al., "IGCV3: Interleaved low-rank group convolutions for efficient deep neural
networks", 2018. Sizes as in the pytorchcv collection.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import NONE, RELU6, Layers, Map
from coexec.zoo.shufflenet import shuffled

STAGES = (
    (1, 16, 1, 1),
    (6, 24, 4, 2),
    (6, 32, 6, 2),
    (6, 64, 8, 2),
    (6, 96, 6, 1),
    (6, 160, 6, 2),
    (6, 320, 1, 1),
)
"""Expansion, channels, blocks, stride of the first block."""
STEM, HEAD, GROUPS = 32, 1280, 2


def igcv3(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    width: float = 1.0,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes), all channels times ``width`` but the last at most 1."""
    layers = Layers("igcv3", batch, (3, image_size, image_size), seed, RELU6)
    x = layers.conv(layers.x, int(STEM * width), 3, stride=2)
    for expansion, channels, blocks, first in STAGES:
        for block in range(blocks):
            stride = first if block == 0 else 1
            x = _block(layers, x, int(channels * width), expansion, stride)
    return layers.logits(layers.conv(x, int(HEAD * max(width, 1.0))), classes)


def _block(layers: Layers, x: Map, out: int, expansion: int, stride: int) -> Map:
    h = layers.conv(x, expansion * x.channels, groups=GROUPS, act=NONE)
    h = layers.depthwise(shuffled(layers, h, GROUPS), 3, stride=stride)
    h = layers.conv(h, out, groups=GROUPS, act=NONE)
    return layers.add(h, x) if stride == 1 and x.channels == out else h
