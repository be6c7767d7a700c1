"""DLA-X-102: stages that are trees, whose roots join what their branches have found.

Source: Yu et al., "Deep layer aggregation", 2018, as in timm.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from coexec.zoo.layers import NONE, Layers, Map

LEVELS = ((1, 128), (3, 256), (4, 512), (1, 1024))
"""Depth of each tree and channels of its result."""
GROUPS, WIDTH = 32, 4


def dla102x(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """32 groups of convolutions: (N, 3, size, size) -> (N, classes)."""
    layers = Layers("dla102x", batch, (3, image_size, image_size), seed)
    x = layers.conv(layers.conv(layers.x, 16, 7), 16, 3)
    x = layers.conv(x, 32, 3, stride=2)
    for stage, (depth, out) in enumerate(LEVELS):
        beside = [layers.max_pool(x, 2, 2)] if stage else []
        x = _tree(layers, x, out, depth, 2, beside)
    return layers.logits(x, classes)


def _tree(
    layers: Layers, x: Map, out: int, depth: int, stride: int, beside: Sequence[Map] = ()
) -> Map:
    """Two trees or blocks one behind the other; their root joins them and what stands ``beside``.

    The root belongs to the last pair of blocks, and also joins the results of all trees in front.
    """
    if depth > 1:
        first = _tree(layers, x, out, depth - 1, stride)
        return _tree(layers, first, out, depth - 1, 1, [*beside, first])
    shortcut = layers.max_pool(x, stride, stride) if stride > 1 else x
    if x.channels != out:
        shortcut = layers.conv(shortcut, out, act=NONE)
    first = _block(layers, x, shortcut, out, stride)
    second = _block(layers, first, first, out, 1)
    joined = layers.conv(layers.concat(second, first, *beside), out, act=NONE)
    return layers.activate(layers.add(joined, second), layers.act)


def _block(layers: Layers, x: Map, shortcut: Map, out: int, stride: int) -> Map:
    inside = out * WIDTH // 64 * GROUPS // 2
    h = layers.conv(layers.conv(x, inside), inside, 3, stride=stride, groups=GROUPS)
    h = layers.conv(h, out, act=NONE)
    return layers.activate(layers.add(h, shortcut), layers.act)
