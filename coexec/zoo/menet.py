"""MENet: ShuffleNet's units with a narrow branch that merges groups.

Source: Qin et al., "Merging and evolution: Improving convolutional neural networks for mobile
applications", 2018. Sizes as in the pytorchcv collection.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.builder import require
from coexec.zoo.layers import NONE, RELU, SIGMOID, Layers, Map
from coexec.zoo.shufflenet import shuffled

UNITS = (4, 8, 4)
"""Units of each stage."""
STEMS = {108: 12, 128: 12, 160: 16, 228: 24, 256: 24, 348: 24, 352: 24, 456: 48}
"""Channels behind the first convolution, by those of the first stage."""


def menet(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    first: int = 228,
    side: int = 12,
    groups: int = 3,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes).

    ``first`` channels in the first stage, ``side`` channels in the branch that merges ``groups``.

    Raises:
        UsageError: channels of the first stage that the collection does not have.
    """
    require(first in STEMS, f"MENet begins with {', '.join(map(str, STEMS))} channels, not {first}")
    layers = Layers("menet", batch, (3, image_size, image_size), seed)
    x = layers.max_pool(layers.conv(layers.x, STEMS[first], 3, stride=2), 3, 2, 1)
    for stage, units in enumerate(UNITS):
        for unit in range(units):
            inner = groups if stage + unit > 0 else 1
            x = _unit(layers, x, first << stage, (side, inner, groups), strided=unit == 0)
    return layers.logits(x, classes)


def _unit(layers: Layers, x: Map, out: int, sizes: tuple[int, int, int], *, strided: bool) -> Map:
    """``sizes``: channels of the branch, groups of the first and of the second convolution."""
    (side, first, second), stride = sizes, 2 if strided else 1
    # What the mean of the input adds is left out of the product.
    added = out - x.channels if strided else out
    narrow = shuffled(layers, layers.conv(x, out // 4, groups=first), second)
    merged = layers.conv(layers.conv(narrow, side), side, 3, stride=stride)
    gate = layers.conv(merged, narrow.channels, act=SIGMOID)
    h = layers.multiply(layers.depthwise(narrow, 3, stride=stride, act=NONE), gate)
    h = layers.conv(h, added, groups=second, act=NONE)
    if not strided:
        return layers.activate(layers.add(h, x), RELU)
    return layers.activate(layers.concat(h, layers.average_pool(x, 3, 2, 1)), RELU)
