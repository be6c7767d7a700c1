"""GoogLeNet and Inception v3, without the classifiers that only training needs.

Sources: Szegedy et al., "Going deeper with convolutions", 2015, with the 3 x 3 convolution that
torchvision has for the 5 x 5 one, or as it was; "Rethinking the Inception architecture", 2016.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import Layers, Map

MODULES = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)
"""Channels: 1x1, reduced and 3x3, reduced and second 3x3 (5x5 once), behind the pool."""
POOLS = {2: (3, 1), 7: (2, 0)}
"""Kernel and edge of the pool in front of a module."""


def googlenet(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    kernel: int = 3,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes); the paper's second ``kernel`` is 5."""
    layers = Layers("googlenet", batch, (3, image_size, image_size), seed)
    x = layers.max_pool(layers.conv(layers.x, 64, 7, stride=2), 3, 2, 0, ceil=True)
    x = layers.conv(layers.conv(x, 64), 192, 3)
    x = layers.max_pool(x, 3, 2, 0, ceil=True)
    for place, (one, three_in, three, five_in, five, pooled) in enumerate(MODULES):
        if place in POOLS:
            x = layers.max_pool(x, POOLS[place][0], 2, 0, ceil=True)
        x = layers.concat(
            layers.conv(x, one),
            layers.conv(layers.conv(x, three_in), three, 3),
            layers.conv(layers.conv(x, five_in), five, kernel),
            layers.conv(layers.max_pool(x, 3, 1, 1), pooled),
        )
    return layers.logits(x, classes, drop=0.2)


def inception_v3(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 299, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("inception_v3", batch, (3, image_size, image_size), seed)
    x = layers.conv(layers.x, 32, 3, stride=2, pad=0)
    x = layers.conv(layers.conv(x, 32, 3, pad=0), 64, 3)
    x = layers.conv(layers.conv(layers.max_pool(x, 3, 2), 80), 192, 3, pad=0)
    x = layers.max_pool(x, 3, 2)
    for pooled in (32, 64, 64):
        x = _a(layers, x, pooled)
    x = _b(layers, x)
    for inside in (128, 160, 160, 192):
        x = _c(layers, x, inside)
    x = _d(layers, x)
    for _ in range(2):
        x = _e(layers, x)
    return layers.logits(x, classes, drop=0.5)


def _a(layers: Layers, x: Map, pooled: int) -> Map:
    return layers.concat(
        layers.conv(x, 64),
        layers.conv(layers.conv(x, 48), 64, 5),
        layers.conv(layers.conv(layers.conv(x, 64), 96, 3), 96, 3),
        layers.conv(layers.average_pool(x, 3, 1, 1), pooled),
    )


def _b(layers: Layers, x: Map) -> Map:
    return layers.concat(
        layers.conv(x, 384, 3, stride=2, pad=0),
        layers.conv(layers.conv(layers.conv(x, 64), 96, 3), 96, 3, stride=2, pad=0),
        layers.max_pool(x, 3, 2),
    )


def _c(layers: Layers, x: Map, inside: int) -> Map:
    """Kernels of seven rows and of seven columns, one behind the other."""
    row, column = (1, 7), (7, 1)
    h = layers.conv(x, inside)
    for kernel in (column, row, column):
        h = layers.conv(h, inside, kernel)
    return layers.concat(
        layers.conv(x, 192),
        layers.conv(layers.conv(layers.conv(x, inside), inside, row), 192, column),
        layers.conv(h, 192, row),
        layers.conv(layers.average_pool(x, 3, 1, 1), 192),
    )


def _d(layers: Layers, x: Map) -> Map:
    h = layers.conv(layers.conv(layers.conv(x, 192), 192, (1, 7)), 192, (7, 1))
    return layers.concat(
        layers.conv(layers.conv(x, 192), 320, 3, stride=2, pad=0),
        layers.conv(h, 192, 3, stride=2, pad=0),
        layers.max_pool(x, 3, 2),
    )


def _e(layers: Layers, x: Map) -> Map:
    two = layers.conv(x, 384)
    three = layers.conv(layers.conv(x, 448), 384, 3)
    return layers.concat(
        layers.conv(x, 320),
        layers.conv(two, 384, (1, 3)),
        layers.conv(two, 384, (3, 1)),
        layers.conv(three, 384, (1, 3)),
        layers.conv(three, 384, (3, 1)),
        layers.conv(layers.average_pool(x, 3, 1, 1), 192),
    )
