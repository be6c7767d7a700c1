"""RegNet in torchvision's sizes.

Source: Radosavovic et al., "Designing network design spaces", 2020.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import NONE, Layers, Map

Stages = tuple[tuple[int, int], ...]
"""Blocks and channels of each stage."""
Y_400MF: Stages = ((1, 48), (3, 104), (6, 208), (6, 440))
Y_800MF: Stages = ((1, 64), (3, 144), (8, 320), (2, 784))
X_3_2GF: Stages = ((2, 96), (6, 192), (15, 432), (2, 1008))
GROUP = {"regnet_y_400mf": 8, "regnet_y_800mf": 16, "regnet_x_3_2gf": 48}
"""Channels of a group."""


def regnet_y_400mf(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("regnet_y_400mf", batch, (3, image_size, image_size), seed)
    return _network(layers, Y_400MF, classes, excited=True)


def regnet_y_800mf(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("regnet_y_800mf", batch, (3, image_size, image_size), seed)
    return _network(layers, Y_800MF, classes, excited=True)


def regnet_x_3_2gf(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("regnet_x_3_2gf", batch, (3, image_size, image_size), seed)
    return _network(layers, X_3_2GF, classes, excited=False)


def _network(layers: Layers, stages: Stages, classes: int, *, excited: bool) -> ir.Model:
    group = GROUP[str(layers.net.graph.name)]
    x = layers.conv(layers.x, 32, 3, stride=2)
    for blocks, width in stages:
        for block in range(blocks):
            x = _block(layers, x, width, 2 if block == 0 else 1, group, excited=excited)
    return layers.logits(x, classes)


def _block(layers: Layers, x: Map, width: int, stride: int, group: int, *, excited: bool) -> Map:
    h = layers.conv(x, width)
    h = layers.conv(h, width, 3, stride=stride, groups=width // group)
    if excited:
        h = layers.excite(h, round(x.channels / 4))
    h = layers.conv(h, width, act=NONE)
    if stride != 1 or x.channels != width:
        x = layers.conv(x, width, stride=stride, pad=0, act=NONE)
    return layers.activate(layers.add(h, x), layers.act)
