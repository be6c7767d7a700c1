"""ShuffleNet, with three groups, and ShuffleNet V2, both at full width.

Sources: Zhang et al., "ShuffleNet: An extremely efficient convolutional neural network for mobile
devices", 2018; Ma et al., "ShuffleNet V2: Practical guidelines", 2018.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from coexec.zoo.layers import NONE, RELU, Layers, Map

STAGES = ((4, 116), (8, 232), (4, 464))
"""Units and channels of each stage."""


GROUPS, GROUPED = 3, ((4, 240), (8, 480), (4, 960))
"""Of the first version."""


def shufflenet(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("shufflenet", batch, (3, image_size, image_size), seed)
    x = layers.max_pool(layers.conv(layers.x, 24, 3, stride=2), 3, 2, 1)
    for stage, (units, out) in enumerate(GROUPED):
        for unit in range(units):
            x = _grouped_unit(layers, x, out, strided=unit == 0, grouped=stage + unit > 0)
    return layers.logits(x, classes)


def shufflenet_v2(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("shufflenet_v2", batch, (3, image_size, image_size), seed)
    x = layers.max_pool(layers.conv(layers.x, 24, 3, stride=2), 3, 2, 1)
    for units, out in STAGES:
        for unit in range(units):
            x = _unit(layers, x, out, strided=unit == 0)
    return layers.logits(layers.conv(x, 1024), classes)


def _unit(layers: Layers, x: Map, out: int, *, strided: bool) -> Map:
    half = out // 2
    if strided:
        kept = layers.conv(layers.depthwise(x, 3, stride=2, act=NONE), half)
        h = x
    else:
        kept, h = layers.split(x, half, half)
    h = layers.depthwise(layers.conv(h, half), 3, stride=2 if strided else 1, act=NONE)
    return shuffled(layers, layers.concat(kept, layers.conv(h, half)))


def _grouped_unit(layers: Layers, x: Map, out: int, *, strided: bool, grouped: bool) -> Map:
    """The very first 1 x 1 convolution, on few channels, has no groups."""
    inside, stride = out // 4, 2 if strided else 1
    # What the mean of the input adds is left out of the product; as few channels inside.
    added = out - x.channels if strided else out
    inside = inside if grouped else (out - x.channels) // 4
    h = layers.conv(x, inside, groups=GROUPS if grouped else 1)
    if grouped:
        h = shuffled(layers, h, GROUPS)
    h = layers.conv(layers.depthwise(h, 3, stride=stride, act=NONE), added, groups=GROUPS, act=NONE)
    if not strided:
        return layers.activate(layers.add(h, x), RELU)
    return layers.activate(layers.concat(layers.average_pool(x, 3, 2, 1), h), RELU)


def shuffled(layers: Layers, x: Map, parts: int = 2) -> Map:
    """Channels of all parts take turns."""
    net, name = layers.net, layers.name("shuffle")
    apart = net.constant(
        f"{name}.apart", (0, parts, x.channels // parts, x.height, x.width), "int64"
    )
    value = net.op("Reshape", f"{name}.parts", [x.value, apart])
    value = net.op("Transpose", name, [value], {"perm": (0, 2, 1, 3, 4)})
    together = net.constant(f"{name}.together", (0, x.channels, x.height, x.width), "int64")
    return replace(x, value=net.op("Reshape", f"{name}.channels", [value, together]))
