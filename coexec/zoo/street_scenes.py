"""Fast segmentation of street scenes: FFNet, BiSeNet, DDRNet.

Sources: Mehta et al., "Simple and efficient architectures for semantic segmentation", 2022 (the
slim networks with heads of form B for mobile devices); Yu et al., "BiSeNet", 2018, on ResNet-18 in
ooooverflow's form; Hong et al., "Deep dual-resolution networks for real-time and accurate semantic
segmentation of road scenes", 2021 (23-slim).
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import NONE, RELU, SIGMOID, Layers, Map
from coexec.zoo.residual import RESNET18, basic_block, bottleneck, stages, stem

SLIM, NARROW = (64, 128, 192, 320), ((16, 64), (24, 128), (20, 256))
"""FFNet's channels by stage; blocks and channels where it has three stages."""
BRANCHES, SMOOTHED = (64, 128, 128, 256), (96, 96, 64, 32)
"""FFNet's channels by stage: of the head's inputs, of what it joins."""
POOLS = ((5, 2), (9, 4), (17, 8))
"""DDRNet's pyramid: kernel and stride of each mean."""


def ffnet_40s(
    batch: int | None = None,
    classes: int = 19,
    *,
    height: int = 1024,
    width: int = 2048,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, height, width) -> (N, classes, height / 8, width / 8)."""
    return _ffnet("ffnet_40s", (4, 5, 6, 4), batch, classes, (height, width), seed)


def ffnet_54s(
    batch: int | None = None,
    classes: int = 19,
    *,
    height: int = 1024,
    width: int = 2048,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, height, width) -> (N, classes, height / 8, width / 8)."""
    return _ffnet("ffnet_54s", (5, 8, 8, 5), batch, classes, (height, width), seed)


def ffnet_78s(
    batch: int | None = None,
    classes: int = 19,
    *,
    height: int = 1024,
    width: int = 2048,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, height, width) -> (N, classes, height / 8, width / 8)."""
    return _ffnet("ffnet_78s", (6, 12, 12, 8), batch, classes, (height, width), seed)


def ffnet_122ns(
    batch: int | None = None,
    classes: int = 19,
    *,
    height: int = 512,
    width: int = 1024,
    seed: int = 0,
) -> ir.Model:
    """Of three stages, with heads of form C: (N, 3, height, width) -> (N, classes, ...)."""
    layers = Layers("ffnet_122ns", batch, (3, height, width), seed)
    x = layers.conv(layers.conv(layers.x, 64, 3, stride=2), 64, 3, stride=2)
    x = layers.conv(x, 64, 3)
    found = [x]
    for count, out in NARROW:
        x = _stage(layers, x, out, count, 2)
        found.append(x)
    x = layers.conv(_joined(layers, found, (128,) * 4, (128, 16, 16, 16)), 128, 3, bias=True)
    return layers.finish(layers.conv(x, classes, norm=False, act=NONE))


def bisenet(
    batch: int | None = None,
    classes: int = 12,
    *,
    height: int = 720,
    width: int = 960,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, height, width) -> (N, classes, height, width)."""
    layers = Layers("bisenet", batch, (3, height, width), seed)
    spatial = layers.x
    for out in (64, 128, 256):
        spatial = layers.conv(spatial, out, 3, stride=2, bias=True)
    *_, middle, deep = stages(layers, stem(layers), RESNET18)
    tail = layers.squeeze(deep)
    deep = layers.multiply(_refined(layers, deep), tail)
    context = [layers.resize_to(x, spatial) for x in (_refined(layers, middle), deep)]
    x = layers.conv(layers.concat(spatial, *context), classes, 3, bias=True)
    gate = layers.conv(layers.squeeze(x), classes, norm=False)
    gate = layers.conv(gate, classes, norm=False, act=SIGMOID)
    x = layers.add(layers.multiply(x, gate), x)
    return layers.finish(layers.conv(layers.resize_to(x, layers.x), classes, norm=False, act=NONE))


def ddrnet_23_slim(
    batch: int | None = None,
    classes: int = 19,
    *,
    height: int = 1024,
    width: int = 2048,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, height, width) -> (N, classes, height / 8, width / 8)."""
    layers, base = Layers("ddrnet_23_slim", batch, (3, height, width), seed), 32
    x = layers.conv(
        layers.conv(layers.x, base, 3, stride=2, bias=True), base, 3, stride=2, bias=True
    )
    x = relu(layers, _blocks(layers, x, base, 1))
    fine = relu(layers, _blocks(layers, x, 2 * base, 2))
    x = _blocks(layers, fine, 4 * base, 2)
    x, fine = _exchange(layers, x, _blocks(layers, fine, 2 * base, 1), (4 * base,))
    x = _blocks(layers, relu(layers, x), 8 * base, 2)
    branch = _blocks(layers, relu(layers, fine), 2 * base, 1)
    x, fine = _exchange(layers, x, branch, (4 * base, 8 * base))
    fine = bottleneck(layers, relu(layers, fine), (2 * base, 4 * base), act=NONE)
    x = bottleneck(layers, relu(layers, x), (8 * base, 16 * base), 2, act=NONE)
    x = layers.add(layers.resize_to(_pyramid(layers, x, 128, 4 * base), fine), fine)
    x = layers.conv(ahead(layers, x), 64, 3)
    return layers.finish(layers.conv(x, classes, norm=False, act=NONE))


def _ffnet(
    name: str,
    blocks: tuple[int, ...],
    batch: int | None,
    classes: int,
    size: tuple[int, int],
    seed: int,
) -> ir.Model:
    layers = Layers(name, batch, (3, *size), seed)
    x = layers.x
    for out in (32, 64, 64):
        x = layers.conv(x, out, 3, stride=2)
    found = []
    for stage, (count, out) in enumerate(zip(blocks, SLIM, strict=True)):
        x = _stage(layers, x, out, count, 2 if stage else 1)
        found.append(x)
    x = layers.conv(_joined(layers, found, BRANCHES, SMOOTHED), 256, 3, bias=True)
    return layers.finish(layers.conv(x, classes, 3, norm=False, act=NONE))


def _stage(layers: Layers, x: Map, out: int, count: int, stride: int) -> Map:
    for block in range(count):
        x = basic_block(layers, x, out, stride if block == 0 else 1)
    return x


def _joined(
    layers: Layers, found: list[Map], widths: tuple[int, ...], smoothed: tuple[int, ...]
) -> Map:
    """Maps of four sizes, each with what coarser ones have found, at the size of the finest."""
    found = [layers.conv(x, out) for x, out in zip(found, widths, strict=True)]
    x = found[-1]
    smooth = [layers.conv(x, smoothed[-1], 3)]
    for stage in (2, 1, 0):
        up = layers.conv(x, widths[stage])
        x = layers.add(layers.resize_to(up, found[stage], linear=False), found[stage])
        smooth.insert(0, layers.conv(x, smoothed[stage], 3))
    return layers.concat(*(layers.resize_to(each, smooth[0], linear=False) for each in smooth))


def _refined(layers: Layers, x: Map) -> Map:
    gate = layers.conv(layers.squeeze(x), x.channels, norm=False, act=SIGMOID)
    return layers.multiply(x, gate)


def relu(layers: Layers, x: Map) -> Map:
    """Its positive part."""
    return layers.activate(x, RELU)


def _blocks(layers: Layers, x: Map, out: int, stride: int) -> Map:
    """Two blocks; the second one's sum has no activation."""
    return basic_block(layers, basic_block(layers, x, out, stride), out, act=NONE)


def _exchange(layers: Layers, x: Map, fine: Map, down: tuple[int, ...]) -> tuple[Map, Map]:
    """Both resolutions, each with what the other one has found added."""
    h = relu(layers, fine)
    for place, out in enumerate(down):
        h = layers.conv(h, out, 3, stride=2, act=NONE if place == len(down) - 1 else RELU)
    up = layers.conv(relu(layers, x), fine.channels, act=NONE)
    return layers.add(x, h), layers.add(fine, layers.resize_to(up, fine))


def ahead(layers: Layers, x: Map) -> Map:
    """Normalisation and activation in front of a convolution."""
    return relu(layers, layers.norm(x))


def _pyramid(layers: Layers, x: Map, inside: int, out: int) -> Map:
    """DDRNet's pyramid of means over more and more of the image."""
    found = [layers.conv(ahead(layers, x), inside, norm=False, bias=False, act=NONE)]
    means = [layers.average_pool(x, kernel, stride, kernel // 2) for kernel, stride in POOLS]
    for mean in (*means, layers.squeeze(x)):
        h = layers.conv(ahead(layers, mean), inside, norm=False, bias=False, act=NONE)
        h = ahead(layers, layers.add(layers.resize_to(h, x), found[-1]))
        found.append(layers.conv(h, inside, 3, norm=False, bias=False, act=NONE))
    h = ahead(layers, layers.concat(*found))
    h = layers.conv(h, out, norm=False, bias=False, act=NONE)
    beside = layers.conv(ahead(layers, x), out, norm=False, bias=False, act=NONE)
    return layers.add(h, beside)
