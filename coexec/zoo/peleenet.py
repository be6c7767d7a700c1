"""PeleeNet.

Source: Wang et al., "Pelee: a real-time object detection system on mobile devices", 2018. Sizes as
in the pytorchcv collection.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import Layers, Map

STAGES = ((3, 1), (4, 2), (8, 4), (6, 4))
"""Dense units, and channels in front of their 3 x 3 convolutions over those of a branch."""
STEM, BRANCH = 32, 16
"""Channels of the stem, and of each of the two branches that a unit adds."""


def peleenet(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("peleenet", batch, (3, image_size, image_size), seed)
    x = _stem(layers)
    for place, (units, wider) in enumerate(STAGES):
        for _ in range(units):
            x = _dense_unit(layers, x, wider * BRANCH)
        x = layers.conv(x, x.channels)
        if place < len(STAGES) - 1:
            x = layers.average_pool(x, 2, 2)
    return layers.logits(x, classes, drop=0.5)


def _stem(layers: Layers) -> Map:
    """A quarter of the size: convolved beside pooled."""
    x = layers.conv(layers.x, STEM, 3, stride=2)
    convolved = layers.conv(layers.conv(x, STEM // 2), STEM, 3, stride=2)
    return layers.conv(layers.concat(layers.max_pool(x, 2, 2), convolved), STEM)


def _dense_unit(layers: Layers, x: Map, inside: int) -> Map:
    """What came in, with what one and two 3 x 3 convolutions see."""
    near = layers.conv(layers.conv(x, inside), BRANCH, 3)
    far = layers.conv(layers.conv(layers.conv(x, inside), BRANCH, 3), BRANCH, 3)
    return layers.concat(x, near, far)
