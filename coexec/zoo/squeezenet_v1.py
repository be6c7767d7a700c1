"""SqueezeNet 1.0. Source: Iandola et al., "SqueezeNet", 2016, as in torchvision."""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import Layers
from coexec.zoo.single_shot import FIRES, fire

POOLED = (3, 7)
"""Blocks with a pool in front."""


def squeezenet_v1_0(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    residual: bool = False,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes).

    ``residual``: blocks that keep their channels are added to what they start from.
    """
    layers = Layers("squeezenet_v1_0", batch, (3, image_size, image_size), seed)
    x = layers.conv(layers.x, 96, 7, stride=2, pad=0, norm=False)
    x = layers.max_pool(x, 3, 2, ceil=True)
    for place, widths in enumerate(FIRES):
        if place in POOLED:
            x = layers.max_pool(x, 3, 2, ceil=True)
        h = fire(layers, x, *widths)
        x = layers.add(h, x) if residual and h.channels == x.channels else h
    x = layers.squeeze(layers.conv(x, classes, norm=False))
    return layers.net.finish(layers.net.op("Flatten", "flatten", [x.value], {"axis": 1}), classes)
