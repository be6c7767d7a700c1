"""Networks on VGG's features: CRAFT, which finds text, and boxes in three dimensions.

Sources: Baek et al., "Character region awareness for text detection", 2019, on VGG-16; Mousavian et
al., "3D bounding box estimation using deep learning and geometry", 2017, on VGG-19 as in skhadem's
PyTorch code; Simonyan, Zisserman, "Very deep convolutional networks", 2015, both normalised.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import NONE, RELU, Layers, Map

VGG16 = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 2)
"""Without the last convolution, which CRAFT leaves out."""
VGG19 = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)
UP = ((512, 256), (256, 128), (128, 64), (64, 32))
"""CRAFT's way up: channels of both convolutions at each size."""
BOX = (("orientation", 256, 4), ("confidence", 256, 2), ("dimension", 512, 3))
"""Heads of the boxes: hidden features and results."""


def craft(
    batch: int | None = None,
    classes: int = 2,
    *,
    height: int = 608,
    width: int = 800,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, height, width) -> maps of letters and gaps (N, classes, height / 2, width / 2)."""
    layers = Layers("craft", batch, (3, height, width), seed)
    (_, *kept), x = _features(layers, VGG16)
    x = layers.max_pool(x, 3, 1, 1)
    x = layers.conv(x, 1024, 3, dilation=6, norm=False, act=NONE)
    x = layers.conv(x, 1024, norm=False, act=NONE)
    for beside, (inside, out) in zip(reversed(kept), UP, strict=True):
        x = layers.concat(layers.resize_to(x, beside), beside)
        x = layers.conv(layers.conv(x, inside, bias=True), out, 3, bias=True)
    for out in (32, 32, 16):
        x = layers.conv(x, out, 3, norm=False)
    return layers.finish(layers.conv(layers.conv(x, 16, norm=False), classes, norm=False, act=NONE))


def box3d_vgg19(
    batch: int | None = None, classes: int = 9, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes): orientation, confidence and dimensions of a box."""
    layers = Layers("box3d_vgg19", batch, (3, image_size, image_size), seed)
    x = layers.max_pool(_features(layers, VGG19)[1], 2, 2)
    net, found = layers.net, []
    flat = net.op("Flatten", "flatten", [x.value], {"axis": 1})
    for _, hidden, results in BOX:
        h = layers.dense(flat, (x.channels * x.height * x.width, hidden), RELU)
        found.append(layers.dense(layers.dense(h, (hidden, hidden), RELU), (hidden, results)))
    return net.finish(net.op("Concat", "box", found, {"axis": 1}), classes)


def _features(layers: Layers, stages: tuple[tuple[int, ...], ...]) -> tuple[list[Map], Map]:
    """What the second convolution of each stage results in, and what the last stage does."""
    found: list[Map] = []
    x = layers.x
    for widths in stages:
        x = layers.max_pool(x, 2, 2) if found else x
        for place, out in enumerate(widths):
            x = layers.conv(x, out, 3, bias=True)
            if place == 1:
                found.append(x)
    return found, x
