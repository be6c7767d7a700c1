"""ShuffleNet, with any groups, and ShuffleNet V2, at any width.

Sources: Zhang et al., "ShuffleNet: An extremely efficient convolutional neural network for mobile
devices", 2018; Ma et al., "ShuffleNet V2: Practical guidelines", 2018.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from coexec.zoo.builder import require
from coexec.zoo.layers import NONE, RELU, Layers, Map

STAGES = ((4, 116), (8, 232), (4, 464))
"""Units and channels of each stage."""


UNITS, GROUPED = (4, 8, 4), {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
"""Of the first version: units of each stage; channels of the first stage by groups."""
HALVES = {0.5: 24, 1.0: 58, 1.5: 88, 2.0: 122}
"""Of the second version: half of the channels of the first stage, by what the widths are called."""
STEM, HEAD = 24, 1024


def shufflenet(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    groups: int = 3,
    width: float = 1.0,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes), all channels times ``width``.

    Raises:
        UsageError: groups that the paper does not have.
    """
    require(groups in GROUPED, f"ShuffleNet has {', '.join(map(str, GROUPED))} groups")
    layers = Layers("shufflenet", batch, (3, image_size, image_size), seed)
    x = layers.max_pool(layers.conv(layers.x, int(STEM * width), 3, stride=2), 3, 2, 1)
    for stage, units in enumerate(UNITS):
        out = int((GROUPED[groups] << stage) * width)
        for unit in range(units):
            inner = groups if stage + unit > 0 else 1
            x = _grouped_unit(layers, x, out, (inner, groups), strided=unit == 0)
    return layers.logits(x, classes)


def shufflenet_v2_of_width(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    width: float = 1.0,
    stepped: bool = False,
    seed: int = 0,
) -> ir.Model:
    """At one of the paper's widths, as in the pytorchcv collection.

    (N, 3, size, size) -> (N, classes). The last convolution grows with what is wider than 1; with
    ``stepped`` it doubles at width 2 alone, as in the paper and in torchvision.

    Raises:
        UsageError: another width.
    """
    require(width in HALVES, f"ShuffleNet V2 is {', '.join(map(str, HALVES))} wide, not {width}")
    layers = Layers("shufflenet_v2_of_width", batch, (3, image_size, image_size), seed)
    x = layers.max_pool(layers.conv(layers.x, STEM, 3, stride=2), 3, 2, 1)
    for stage, units in enumerate(UNITS):
        for unit in range(units):
            x = _unit(layers, x, 2 * HALVES[width] << stage, strided=unit == 0)
    growth = max(1.0, width // 1 if stepped else HALVES[width] / HALVES[1.0])
    head = int(HEAD * growth)
    return layers.logits(layers.conv(x, head), classes)


def shufflenet_v2(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("shufflenet_v2", batch, (3, image_size, image_size), seed)
    return layers.logits(layers.conv(stages_v2(layers)[-1], HEAD), classes)


def stages_v2(layers: Layers) -> list[Map]:
    """What each of the three stages results in, at full width."""
    x, found = layers.max_pool(layers.conv(layers.x, STEM, 3, stride=2), 3, 2, 1), []
    for units, out in STAGES:
        for unit in range(units):
            x = _unit(layers, x, out, strided=unit == 0)
        found.append(x)
    return found


def _unit(layers: Layers, x: Map, out: int, *, strided: bool) -> Map:
    half = out // 2
    if strided:
        kept = layers.conv(layers.depthwise(x, 3, stride=2, act=NONE), half)
        h = x
    else:
        kept, h = layers.split(x, half, half)
    h = layers.depthwise(layers.conv(h, half), 3, stride=2 if strided else 1, act=NONE)
    return shuffled(layers, layers.concat(kept, layers.conv(h, half)))


def _grouped_unit(
    layers: Layers, x: Map, out: int, groups: tuple[int, int], *, strided: bool
) -> Map:
    """``groups`` of the first and of the second 1 x 1 convolution."""
    (first, second), stride = groups, 2 if strided else 1
    # What the mean of the input adds is left out of the product.
    added = out - x.channels if strided else out
    h = layers.conv(x, out // 4, groups=first)
    if first > 1:
        h = shuffled(layers, h, first)
    h = layers.conv(layers.depthwise(h, 3, stride=stride, act=NONE), added, groups=second, act=NONE)
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
