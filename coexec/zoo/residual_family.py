"""Residual networks of any depth and width, with what was proposed around their blocks.

One rule builds ResNet, ResNeXt, SE-ResNet, PreResNet and SE-PreResNet, as the pytorchcv collection
does. Sources: He et al., "Deep residual learning for image recognition", 2016, and "Identity
mappings in deep residual networks", 2016; Xie et al., "Aggregated residual transformations", 2017;
Hu et al., "Squeeze-and-excitation networks", 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from coexec.zoo.builder import require
from coexec.zoo.layers import NONE, RELU, Layers, Map

PLAIN = {
    10: (1, 1, 1, 1),
    12: (2, 1, 1, 1),
    14: (2, 2, 1, 1),
    16: (2, 2, 2, 1),
    18: (2, 2, 2, 2),
    26: (3, 3, 3, 3),
    34: (3, 4, 6, 3),
}
"""Blocks of each stage by depth, two 3 x 3 convolutions each."""
BOTTLENECKS = {
    14: (1, 1, 1, 1),
    26: (2, 2, 2, 2),
    38: (3, 3, 3, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
"""Blocks of each stage by depth, 1 x 1, 3 x 3 and 1 x 1 each."""
ALWAYS_BOTTLENECKS = 50
"""From this depth on blocks are bottlenecks."""
EXPANSION, REDUCTION = 4, 16
"""Results of bottlenecks over channels inside; channels over those that excitation squeezes to."""


@dataclass(frozen=True)
class _Block:
    """What blocks of a network have in common."""

    bottleneck: bool
    early_stride: bool
    excited: bool
    preactivated: bool
    groups: int
    group_width: int

    def inside(self, out: int) -> int:
        """Channels of the 3 x 3 convolution of a bottleneck."""
        inside = out // EXPANSION
        return inside if self.groups == 1 else self.groups * (inside * self.group_width // 64)


def residual_network(  # noqa: PLR0913 - a family has this many settings
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    depth: int = 18,
    width: float = 1.0,
    bottleneck: bool = False,
    early_stride: bool = False,
    excited: bool = False,
    preactivated: bool = False,
    groups: int = 1,
    group_width: int = 64,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes).

    ``width`` multiplies all channels but those of the last block. Bottlenecks halve the image in
    their 3 x 3 convolution, with ``early_stride`` in the first 1 x 1 one; ``groups`` of it have
    ``group_width`` channels in the first stage. ``preactivated``: norm and activation come first.

    Raises:
        UsageError: a depth that no network of the family has.
    """
    deep = bottleneck or depth >= ALWAYS_BOTTLENECKS or groups > 1
    known = BOTTLENECKS if deep else PLAIN
    require(depth in known, f"residual networks are {', '.join(map(str, known))} deep, not {depth}")
    layers = Layers("residual_network", batch, (3, image_size, image_size), seed)
    block = _Block(deep, early_stride, excited, preactivated, groups, group_width)
    x = layers.conv(layers.x, int(64 * width), 7, stride=2)
    x = layers.max_pool(x, 3, 2, 1)
    for stage, count in enumerate(known[depth]):
        channels = (64 << stage) * (EXPANSION if deep else 1)
        for place in range(count):
            last = stage == len(known[depth]) - 1 and place == count - 1
            stride = 2 if place == 0 and stage > 0 else 1
            x = _unit(layers, x, channels if last else int(channels * width), stride, block)
    if preactivated:
        x = _activated(layers, x)
    return layers.logits(x, classes)


def _unit(layers: Layers, x: Map, out: int, stride: int, block: _Block) -> Map:
    """A block beside its shortcut."""
    resized = stride != 1 or x.channels != out
    ready = _activated(layers, x) if block.preactivated else x
    h = _convolutions(layers, ready, out, stride, block)
    if resized:
        norm = not block.preactivated
        x = layers.conv(ready, out, stride=stride, pad=0, norm=norm, bias=False, act=NONE)
    if block.excited:
        h = layers.excite(h, out // REDUCTION)
    h = layers.add(h, x)
    return h if block.preactivated else layers.activate(h, RELU)


def _convolutions(layers: Layers, x: Map, out: int, stride: int, block: _Block) -> Map:
    """Those of a block; between two of them norm and activation, at the end what belongs there."""
    norm = not block.preactivated
    if not block.bottleneck:
        h = layers.conv(x, out, 3, stride=stride)
        return layers.conv(h, out, 3, norm=norm, bias=False, act=NONE)
    inside = block.inside(out)
    first, second = (stride, 1) if block.early_stride else (1, stride)
    h = layers.conv(x, inside, stride=first, pad=0)
    h = layers.conv(h, inside, 3, stride=second, groups=block.groups)
    return layers.conv(h, out, norm=norm, bias=False, act=NONE)


def _activated(layers: Layers, x: Map) -> Map:
    return layers.activate(layers.norm(x), RELU)
