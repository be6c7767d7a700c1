"""SENet: grouped bottlenecks with excitation, and 3 x 3 convolutions in their shortcuts.

Source: Hu et al., "Squeeze-and-excitation networks", 2018 (SENet-154). Sizes as in the pytorchcv
collection, which has smaller ones, too.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.builder import require
from coexec.zoo.layers import NONE, RELU, Layers, Map

BLOCKS = {
    16: (1, 1, 1, 1),
    28: (2, 2, 2, 2),
    40: (3, 3, 3, 3),
    52: (3, 4, 6, 3),
    103: (3, 4, 23, 3),
    154: (3, 8, 36, 3),
}
"""Blocks of each stage by depth."""
GROUPS, DEEPEST = 32, 154
"""Groups of 3 x 3 convolutions; the deepest network has twice as many."""
STEM, OUT, REDUCTION, DROP = 128, 256, 16, 0.2
"""Channels behind the stem and the first stage; those of excitation; part that is dropped."""


def senet(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    depth: int = 154,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes).

    Raises:
        UsageError: a depth that no network of the family has.
    """
    require(depth in BLOCKS, f"SENet is {', '.join(map(str, BLOCKS))} deep, not {depth}")
    layers = Layers("senet", batch, (3, image_size, image_size), seed)
    x = layers.conv(layers.x, STEM // 2, 3, stride=2)
    x = layers.conv(layers.conv(x, STEM // 2, 3), STEM, 3)
    x = layers.max_pool(x, 3, 2, 1)
    groups = GROUPS * (2 if depth == DEEPEST else 1)
    for stage, count in enumerate(BLOCKS[depth]):
        for block in range(count):
            strided = stage > 0 and block == 0
            x = _block(layers, x, OUT << stage, groups, strided=strided)
    return layers.logits(x, classes, drop=DROP)


def _block(layers: Layers, x: Map, out: int, groups: int, *, strided: bool) -> Map:
    """1 x 1, grouped 3 x 3 and 1 x 1 with excitation, beside a shortcut."""
    inside, stride = groups * (out // 64), 2 if strided else 1
    h = layers.conv(x, inside // 2)
    h = layers.conv(h, inside, 3, stride=stride, groups=groups)
    h = layers.conv(h, out, act=NONE)
    h = layers.excite(h, out // REDUCTION)
    if x.channels != out:
        x = layers.conv(x, out, 3 if strided else 1, stride=stride, act=NONE)
    return layers.activate(layers.add(h, x), RELU)
