"""Residual networks of all depths, ResNeXt and Wide ResNet, and their stages for other networks.

Sources: He et al., "Deep residual learning for image recognition", 2016, with the stride in the
3 x 3 convolution as in torchvision; Xie et al., "Aggregated residual transformations", 2017;
Zagoruyko, Komodakis, "Wide residual networks", 2016. Stages may keep their size and dilate instead
(Chen et al., "Rethinking atrous convolution", 2017), as segmentation does.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from coexec.zoo.layers import NONE, Layers, Map


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


RESNET18 = Residual((2, 2, 2, 2), bottleneck=False)
RESNET34 = Residual((3, 4, 6, 3), bottleneck=False)
RESNET50 = Residual((3, 4, 6, 3))
RESNET101 = Residual((3, 4, 23, 3))
RESNEXT50 = Residual((3, 4, 6, 3), width=128, groups=32)
RESNEXT101 = Residual((3, 4, 23, 3), width=256, groups=32)
WIDE_RESNET50 = Residual((3, 4, 6, 3), width=128)


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


def basic_block(layers: Layers, x: Map, width: int, stride: int = 1, act: str | None = None) -> Map:
    """Two 3 x 3 convolutions beside a shortcut; ``act`` stands behind the sum."""
    h = layers.conv(x, width, 3, stride=stride)
    h = layers.conv(h, width, 3, act=NONE)
    return _sum(layers, h, x, stride, act)


def bottleneck(
    layers: Layers,
    x: Map,
    widths: tuple[int, int],
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    act: str | None = None,
) -> Map:
    """1 x 1, 3 x 3 and 1 x 1 beside a shortcut; ``widths`` are those inside and of the result."""
    inside, out = widths
    h = layers.conv(
        layers.conv(x, inside), inside, 3, stride=stride, dilation=dilation, groups=groups
    )
    return _sum(layers, layers.conv(h, out, act=NONE), x, stride, act)


def _sum(layers: Layers, h: Map, x: Map, stride: int, act: str | None) -> Map:
    if stride != 1 or x.channels != h.channels:
        x = layers.conv(x, h.channels, stride=stride, pad=0, act=NONE)
    return layers.activate(layers.add(h, x), layers.act if act is None else act)
