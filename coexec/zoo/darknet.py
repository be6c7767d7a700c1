"""Darknets: the reference, the tiny one and Darknet-53.

Sources: Redmon, "Darknet: Open source neural networks in C", 2013-2016; Redmon, Farhadi, "YOLOv3:
An incremental improvement", 2018. Sizes as in the pytorchcv collection.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.builder import require
from coexec.zoo.layers import LEAKY, NONE, Layers, Map

REFERENCE = ((16,), (32,), (64,), (128,), (256,), (512,), (1024,))
TINY = ((16,), (32,), (16, 128, 16, 128), (32, 256, 32, 256), (64, 512, 64, 512, 128))
BLOCKS = (1, 2, 8, 8, 4)
"""Of Darknet-53: residual blocks behind each halving of the image."""


def darknet(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    tiny: bool = False,
    seed: int = 0,
) -> ir.Model:
    """The reference network, or the ``tiny`` one: (N, 3, size, size) -> (N, classes)."""
    layers = Layers("darknet", batch, (3, image_size, image_size), seed, LEAKY)
    plan, x = TINY if tiny else REFERENCE, layers.x
    for stage, widths in enumerate(plan):
        for place, width in enumerate(widths):
            pointwise = len(widths) > 1 and place % 2 == 0
            x = layers.conv(x, width, 1 if pointwise else 3)
        if stage < len(plan) - 1:
            x = layers.max_pool(x, 2, 2)
    x = layers.conv(x, classes, norm=False, act=LEAKY if tiny else NONE)
    x = layers.squeeze(x)
    return layers.net.finish(layers.net.op("Flatten", "flatten", [x.value], {"axis": 1}), classes)


def darknet53(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """Residual blocks: (N, 3, size, size) -> (N, classes)."""
    require(image_size >= 32, f"Darknet-53 halves images five times, {image_size} is too small")
    layers = Layers("darknet53", batch, (3, image_size, image_size), seed, LEAKY)
    x = layers.conv(layers.x, 32, 3)
    for stage, count in enumerate(BLOCKS):
        x = layers.conv(x, 64 << stage, 3, stride=2)
        for _ in range(count):
            x = _block(layers, x)
    return layers.logits(x, classes)


def _block(layers: Layers, x: Map) -> Map:
    h = layers.conv(layers.conv(x, x.channels // 2), x.channels, 3)
    return layers.add(h, x)
