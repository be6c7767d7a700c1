"""Inception-v4 and Inception-ResNet-v2.

Source: Szegedy et al., "Inception-v4, Inception-ResNet and the impact of residual connections on
learning", 2017; channels as in the authors' code.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import NONE, RELU, Layers, Map

ROW, COLUMN = (1, 7), (7, 1)


def inception_v4(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 299, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("inception_v4", batch, (3, image_size, image_size), seed)
    x = layers.conv(layers.conv(layers.x, 32, 3, stride=2, pad=0), 32, 3, pad=0)
    x = layers.conv(x, 64, 3)
    x = layers.concat(layers.max_pool(x, 3, 2), layers.conv(x, 96, 3, stride=2, pad=0))
    long = layers.conv(layers.conv(layers.conv(x, 64), 64, ROW), 64, COLUMN)
    x = layers.concat(
        layers.conv(layers.conv(x, 64), 96, 3, pad=0), layers.conv(long, 96, 3, pad=0)
    )
    x = layers.concat(layers.conv(x, 192, 3, stride=2, pad=0), layers.max_pool(x, 3, 2))
    for _ in range(4):
        x = _a(layers, x)
    x = _reduced(layers, x, (384, 192, 224, 256))
    for _ in range(7):
        x = _b(layers, x)
    x = _b_reduced(layers, x)
    for _ in range(3):
        x = _c(layers, x)
    return layers.logits(x, classes, drop=0.2)


def inception_resnet_v2(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 299, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("inception_resnet_v2", batch, (3, image_size, image_size), seed)
    x = layers.conv(layers.conv(layers.x, 32, 3, stride=2, pad=0), 32, 3, pad=0)
    x = layers.max_pool(layers.conv(x, 64, 3), 3, 2)
    x = layers.max_pool(layers.conv(layers.conv(x, 80), 192, 3, pad=0), 3, 2)
    x = layers.concat(
        layers.conv(x, 96),
        layers.conv(layers.conv(x, 48), 64, 5),
        layers.conv(layers.conv(layers.conv(x, 64), 96, 3), 96, 3),
        layers.conv(layers.average_pool(x, 3, 1, 1), 64),
    )
    for _ in range(10):
        three = layers.conv(layers.conv(layers.conv(x, 32), 48, 3), 64, 3)
        two = layers.conv(layers.conv(x, 32), 32, 3)
        x = _added(layers, x, layers.conv(x, 32), two, three)
    x = _reduced(layers, x, (384, 256, 256, 384))
    for _ in range(20):
        long = layers.conv(layers.conv(layers.conv(x, 128), 160, ROW), 192, COLUMN)
        x = _added(layers, x, layers.conv(x, 192), long)
    x = layers.concat(
        layers.max_pool(x, 3, 2),
        layers.conv(layers.conv(x, 256), 384, 3, stride=2, pad=0),
        layers.conv(layers.conv(x, 256), 288, 3, stride=2, pad=0),
        layers.conv(layers.conv(layers.conv(x, 256), 288, 3), 320, 3, stride=2, pad=0),
    )
    for last in (*(False,) * 9, True):
        long = layers.conv(layers.conv(layers.conv(x, 192), 224, (1, 3)), 256, (3, 1))
        x = _added(layers, x, layers.conv(x, 192), long, act=NONE if last else RELU)
    return layers.logits(layers.conv(x, 1536), classes, drop=0.2)


def _added(layers: Layers, x: Map, *branches: Map, act: str = RELU) -> Map:
    """The branches, back on as many channels, added to ``x``."""
    h = layers.conv(layers.concat(*branches), x.channels, norm=False, act=NONE)
    return layers.activate(layers.add(x, h), act)


def _reduced(layers: Layers, x: Map, widths: tuple[int, int, int, int]) -> Map:
    one, first, second, third = widths
    h = layers.conv(layers.conv(x, first), second, 3)
    return layers.concat(
        layers.max_pool(x, 3, 2),
        layers.conv(x, one, 3, stride=2, pad=0),
        layers.conv(h, third, 3, stride=2, pad=0),
    )


def _a(layers: Layers, x: Map) -> Map:
    return layers.concat(
        layers.conv(layers.average_pool(x, 3, 1, 1), 96),
        layers.conv(x, 96),
        layers.conv(layers.conv(x, 64), 96, 3),
        layers.conv(layers.conv(layers.conv(x, 64), 96, 3), 96, 3),
    )


def _b(layers: Layers, x: Map) -> Map:
    h = layers.conv(layers.conv(layers.conv(x, 192), 192, ROW), 224, COLUMN)
    h = layers.conv(layers.conv(h, 224, ROW), 256, COLUMN)
    return layers.concat(
        layers.conv(layers.average_pool(x, 3, 1, 1), 128),
        layers.conv(x, 384),
        layers.conv(layers.conv(layers.conv(x, 192), 224, ROW), 256, COLUMN),
        h,
    )


def _b_reduced(layers: Layers, x: Map) -> Map:
    h = layers.conv(layers.conv(layers.conv(x, 256), 256, ROW), 320, COLUMN)
    return layers.concat(
        layers.max_pool(x, 3, 2),
        layers.conv(layers.conv(x, 192), 192, 3, stride=2, pad=0),
        layers.conv(h, 320, 3, stride=2, pad=0),
    )


def _c(layers: Layers, x: Map) -> Map:
    two = layers.conv(x, 384)
    h = layers.conv(layers.conv(layers.conv(x, 384), 448, (1, 3)), 512, (3, 1))
    return layers.concat(
        layers.conv(layers.average_pool(x, 3, 1, 1), 256),
        layers.conv(x, 256),
        layers.conv(two, 256, (1, 3)),
        layers.conv(two, 256, (3, 1)),
        layers.conv(h, 256, (1, 3)),
        layers.conv(h, 256, (3, 1)),
    )
