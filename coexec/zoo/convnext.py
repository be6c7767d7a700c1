"""ConvNeXt. Source: Liu et al., "A ConvNet for the 2020s", 2022, as in torchvision."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from coexec.zoo.builder import linear
from coexec.zoo.layers import NONE, Layers, Map
from coexec.zoo.transformer import layer_norm, project

TINY = ((3, 96), (3, 192), (9, 384), (3, 768))
BASE = ((3, 128), (3, 256), (27, 512), (3, 1024))
"""Blocks and channels of each stage."""


def convnext_tiny(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    return _network("convnext_tiny", TINY, batch, classes, image_size, seed)


def convnext_base(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    return _network("convnext_base", BASE, batch, classes, image_size, seed)


def convnext(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    width: int = 96,
    depth: int = 27,
    seed: int = 0,
) -> ir.Model:
    """First ``width`` channels wide, with ``depth`` blocks in the third stage.

    (N, 3, size, size) -> (N, classes).
    """
    blocks = (3, 3, depth, 3)
    stages = tuple((count, width << place) for place, count in enumerate(blocks))
    return _network("convnext", stages, batch, classes, image_size, seed)


def _network(
    name: str,
    stages: tuple[tuple[int, int], ...],
    batch: int | None,
    classes: int,
    image_size: int,
    seed: int,
) -> ir.Model:
    layers = Layers(name, batch, (3, image_size, image_size), seed, NONE)
    x = layers.conv(layers.x, stages[0][1], 4, stride=4, pad=0, norm=False)
    x = normed(layers, x)
    for place, (count, out) in enumerate(stages):
        if place:
            x = layers.conv(normed(layers, x), out, 2, stride=2, pad=0, norm=False)
        for _ in range(count):
            x = _block(layers, x)
    x = normed(layers, layers.squeeze(x))
    flat = layers.net.op("Flatten", "flatten", [x.value], {"axis": 1})
    return layers.net.finish(linear(layers.net, flat, "fc", (x.channels, classes)), classes)


def _block(layers: Layers, x: Map) -> Map:
    """A 7 x 7 depthwise convolution, then products with the channels last."""
    net, name = layers.net, layers.name("block")
    h = layers.depthwise(x, 7, norm=False).value
    h = net.op("Transpose", f"{name}.last", [h], {"perm": (0, 2, 3, 1)})
    h = layer_norm(net, h, f"{name}.norm", x.channels)
    h = project(net, h, f"{name}.fc1", (x.channels, 4 * x.channels))
    h = net.op("Gelu", f"{name}.gelu", [h])
    h = project(net, h, f"{name}.fc2", (4 * x.channels, x.channels))
    h = net.op("Mul", f"{name}.scale", [h, net.filled(f"{name}.gamma", (x.channels,), 0.1)])
    h = net.op("Transpose", f"{name}.first", [h], {"perm": (0, 3, 1, 2)})
    return layers.add(x, replace(x, value=h))


def normed(layers: Layers, x: Map) -> Map:
    """Layer normalisation over channels."""
    net, name = layers.net, layers.name("norm")
    h = net.op("Transpose", f"{name}.last", [x.value], {"perm": (0, 2, 3, 1)})
    h = layer_norm(net, h, name, x.channels)
    return replace(x, value=net.op("Transpose", f"{name}.first", [h], {"perm": (0, 3, 1, 2)}))
