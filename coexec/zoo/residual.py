"""Residual networks of all depths and widths, and their stages for other networks.

Sources: He et al., "Deep residual learning for image recognition", 2016, with the stride in the
3 x 3 convolution as in torchvision, and "Identity mappings in deep residual networks", 2016; Xie et
al., "Aggregated residual transformations", 2017; Zagoruyko, Komodakis, "Wide residual networks",
2016; Hu et al., "Squeeze-and-excitation networks", 2018. One rule has all that was proposed around
their blocks, as the pytorchcv collection does. Stages may keep their size and dilate instead (Chen
et al., "Rethinking atrous convolution", 2017), as segmentation does.
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
class Residual:
    """Blocks of each stage; ``bottleneck`` blocks have ``width`` channels in ``groups`` inside.

    ``dilated`` last stages keep their size and dilate by 2, then 4.
    """

    blocks: tuple[int, int, int, int]
    bottleneck: bool = True
    width: int = 64
    groups: int = 1
    dilated: int = 0


RESNET18 = Residual(PLAIN[18], bottleneck=False)
RESNET34 = Residual(PLAIN[34], bottleneck=False)
RESNET50 = Residual(BOTTLENECKS[50])
RESNET101 = Residual(BOTTLENECKS[101])
RESNEXT50 = Residual(BOTTLENECKS[50], width=128, groups=32)
RESNEXT101 = Residual(BOTTLENECKS[101], width=256, groups=32)
WIDE_RESNET50 = Residual(BOTTLENECKS[50], width=128)


def resnet34(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    return _classifier("resnet34", RESNET34, batch, classes, image_size, seed)


def resnet101(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    return _classifier("resnet101", RESNET101, batch, classes, image_size, seed)


def resnext50(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """32 groups of 4 channels: (N, 3, size, size) -> (N, classes)."""
    return _classifier("resnext50", RESNEXT50, batch, classes, image_size, seed)


def resnext101(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """32 groups of 8 channels: (N, 3, size, size) -> (N, classes)."""
    return _classifier("resnext101", RESNEXT101, batch, classes, image_size, seed)


def wide_resnet50(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """Twice as wide inside blocks: (N, 3, size, size) -> (N, classes)."""
    return _classifier("wide_resnet50", WIDE_RESNET50, batch, classes, image_size, seed)


def _classifier(
    name: str, network: Residual, batch: int | None, classes: int, image_size: int, seed: int
) -> ir.Model:
    layers = Layers(name, batch, (3, image_size, image_size), seed)
    return layers.logits(stages(layers, stem(layers), network)[-1], classes)


def stem(layers: Layers) -> Map:
    """A quarter of the height and width of the input, 64 channels."""
    return layers.max_pool(layers.conv(layers.x, 64, 7, stride=2), 3, 2, 1)


def stages(layers: Layers, x: Map, network: Residual) -> list[Map]:
    """What each of the four stages results in; ``x`` is behind the stem."""
    found = []
    for stage, count in enumerate(network.blocks):
        dilation = 2 ** max(0, stage - (3 - network.dilated))
        for block in range(count):
            stride = 2 if block == 0 and stage > 0 and dilation == 1 else 1
            # The first block of a stage still looks as far as those of the stage before.
            spread = max(1, dilation // 2) if block == 0 else dilation
            width = network.width << stage
            if network.bottleneck:
                x = bottleneck(layers, x, (width, 256 << stage), stride, spread, network.groups)
            else:
                x = basic_block(layers, x, width, stride)
        found.append(x)
    return found


def basic_block(
    layers: Layers,
    x: Map,
    width: int,
    stride: int = 1,
    act: str | None = None,
    *,
    excited: bool = False,
) -> Map:
    """Two 3 x 3 convolutions beside a shortcut; ``act`` stands behind the sum."""
    h = layers.conv(x, width, 3, stride=stride)
    h = layers.conv(h, width, 3, act=NONE)
    return _sum(layers, h, x, stride, act, excited=excited)


def bottleneck(
    layers: Layers,
    x: Map,
    widths: tuple[int, int],
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    act: str | None = None,
    *,
    early_stride: bool = False,
    excited: bool = False,
) -> Map:
    """1 x 1, 3 x 3 and 1 x 1 beside a shortcut; ``widths`` are those inside and of the result.

    The 3 x 3 convolution has the stride, or the first one (``early_stride``).
    """
    inside, out = widths
    first, second = (stride, 1) if early_stride else (1, stride)
    h = layers.conv(x, inside, stride=first, pad=0)
    h = layers.conv(h, inside, 3, stride=second, dilation=dilation, groups=groups)
    return _sum(layers, layers.conv(h, out, act=NONE), x, stride, act, excited=excited)


def _sum(
    layers: Layers, h: Map, x: Map, stride: int, act: str | None, *, excited: bool = False
) -> Map:
    if stride != 1 or x.channels != h.channels:
        x = layers.conv(x, h.channels, stride=stride, pad=0, act=NONE)
    if excited:
        h = layers.excite(h, h.channels // REDUCTION)
    return layers.activate(layers.add(h, x), layers.act if act is None else act)


@dataclass(frozen=True)
class _Blocks:
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
    small: bool = False,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes).

    ``width`` multiplies all channels but those of the last block. Bottlenecks halve the image in
    their 3 x 3 convolution, with ``early_stride`` in the first 1 x 1 one; ``groups`` of it have
    ``group_width`` channels in the first stage. ``preactivated``: norm and activation come first.
    ``small`` images keep their size in front of the first stage.

    Raises:
        UsageError: a depth that no network of the family has.
    """
    deep = bottleneck or depth >= ALWAYS_BOTTLENECKS or groups > 1
    known = BOTTLENECKS if deep else PLAIN
    require(depth in known, f"residual networks are {', '.join(map(str, known))} deep, not {depth}")
    layers = Layers("residual_network", batch, (3, image_size, image_size), seed)
    blocks = _Blocks(deep, early_stride, excited, preactivated, groups, group_width)
    first = int(64 * width)
    if small:
        x = layers.conv(layers.x, first, 3)
    else:
        x = layers.max_pool(layers.conv(layers.x, first, 7, stride=2), 3, 2, 1)
    for stage, count in enumerate(known[depth]):
        channels = (64 << stage) * (EXPANSION if deep else 1)
        for place in range(count):
            last = stage == len(known[depth]) - 1 and place == count - 1
            stride = 2 if place == 0 and stage > 0 else 1
            x = _block(layers, x, channels if last else int(channels * width), stride, blocks)
    if preactivated:
        x = _activated(layers, x)
    return layers.logits(x, classes)


def _block(layers: Layers, x: Map, out: int, stride: int, blocks: _Blocks) -> Map:
    if blocks.preactivated:
        return _preactivated(layers, x, out, stride, blocks)
    if not blocks.bottleneck:
        return basic_block(layers, x, out, stride, excited=blocks.excited)
    return bottleneck(
        layers,
        x,
        (blocks.inside(out), out),
        stride,
        groups=blocks.groups,
        early_stride=blocks.early_stride,
        excited=blocks.excited,
    )


def _preactivated(layers: Layers, x: Map, out: int, stride: int, blocks: _Blocks) -> Map:
    """Norm and activation in front of the convolutions and of the shortcut, none behind."""
    ready = _activated(layers, x)
    if blocks.bottleneck:
        inside = blocks.inside(out)
        first, second = (stride, 1) if blocks.early_stride else (1, stride)
        h = layers.conv(ready, inside, stride=first, pad=0)
        h = layers.conv(h, inside, 3, stride=second, groups=blocks.groups)
        h = layers.conv(h, out, norm=False, bias=False, act=NONE)
    else:
        h = layers.conv(ready, out, 3, stride=stride)
        h = layers.conv(h, out, 3, norm=False, bias=False, act=NONE)
    if stride != 1 or x.channels != out:
        x = layers.conv(ready, out, stride=stride, pad=0, norm=False, bias=False, act=NONE)
    if blocks.excited:
        h = layers.excite(h, out // REDUCTION)
    return layers.add(h, x)


def _activated(layers: Layers, x: Map) -> Map:
    return layers.activate(layers.norm(x), RELU)
