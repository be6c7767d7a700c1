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

SLIM = (64, 128, 192, 320)
BRANCHES, SMOOTHED = (64, 128, 128, 256), (96, 96, 64, 32)
"""FFNet's channels by stage: of the backbone, of the head's inputs, of what it joins."""
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
    x = _relu(layers, _blocks(layers, x, base, 1))
    fine = _relu(layers, _blocks(layers, x, 2 * base, 2))
    x = _blocks(layers, fine, 4 * base, 2)
    x, fine = _exchange(layers, x, _blocks(layers, fine, 2 * base, 1), (4 * base,))
    x = _blocks(layers, _relu(layers, x), 8 * base, 2)
    branch = _blocks(layers, _relu(layers, fine), 2 * base, 1)
    x, fine = _exchange(layers, x, branch, (4 * base, 8 * base))
    fine = bottleneck(layers, _relu(layers, fine), (2 * base, 4 * base), act=NONE)
    x = bottleneck(layers, _relu(layers, x), (8 * base, 16 * base), 2, act=NONE)
    x = layers.add(layers.resize_to(_pyramid(layers, x, 128, 4 * base), fine), fine)
    x = layers.conv(_ahead(layers, x), 64, 3)
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
        for block in range(count):
            x = basic_block(layers, x, out, 2 if stage and block == 0 else 1)
        found.append(x)
    found = [layers.conv(x, out) for x, out in zip(found, BRANCHES, strict=True)]
    x = found[-1]
    smooth = [layers.conv(x, SMOOTHED[-1], 3)]
    for stage in (2, 1, 0):
        up = layers.conv(x, BRANCHES[stage])
        x = layers.add(layers.resize_to(up, found[stage], linear=False), found[stage])
        smooth.insert(0, layers.conv(x, SMOOTHED[stage], 3))
    x = layers.concat(*(layers.resize_to(each, smooth[0], linear=False) for each in smooth))
    x = layers.conv(x, 256, 3, bias=True)
    return layers.finish(layers.conv(x, classes, 3, norm=False, act=NONE))


def _refined(layers: Layers, x: Map) -> Map:
    gate = layers.conv(layers.squeeze(x), x.channels, norm=False, act=SIGMOID)
    return layers.multiply(x, gate)


def _relu(layers: Layers, x: Map) -> Map:
    return layers.activate(x, RELU)


def _blocks(layers: Layers, x: Map, out: int, stride: int) -> Map:
    """Two blocks; the second one's sum has no activation."""
    return basic_block(layers, basic_block(layers, x, out, stride), out, act=NONE)


def _exchange(layers: Layers, x: Map, fine: Map, down: tuple[int, ...]) -> tuple[Map, Map]:
    """Both resolutions, each with what the other one has found added."""
    h = _relu(layers, fine)
    for place, out in enumerate(down):
        h = layers.conv(h, out, 3, stride=2, act=NONE if place == len(down) - 1 else RELU)
    up = layers.conv(_relu(layers, x), fine.channels, act=NONE)
    return layers.add(x, h), layers.add(fine, layers.resize_to(up, fine))


def _ahead(layers: Layers, x: Map) -> Map:
    """Normalisation and activation in front of a convolution."""
    return _relu(layers, layers.norm(x))


def _pyramid(layers: Layers, x: Map, inside: int, out: int) -> Map:
    """DDRNet's pyramid of means over more and more of the image."""
    found = [layers.conv(_ahead(layers, x), inside, norm=False, bias=False, act=NONE)]
    means = [layers.average_pool(x, kernel, stride, kernel // 2) for kernel, stride in POOLS]
    for mean in (*means, layers.squeeze(x)):
        h = layers.conv(_ahead(layers, mean), inside, norm=False, bias=False, act=NONE)
        h = _ahead(layers, layers.add(layers.resize_to(h, x), found[-1]))
        found.append(layers.conv(h, inside, 3, norm=False, bias=False, act=NONE))
    h = _ahead(layers, layers.concat(*found))
    h = layers.conv(h, out, norm=False, bias=False, act=NONE)
    beside = layers.conv(_ahead(layers, x), out, norm=False, bias=False, act=NONE)
    return layers.add(h, beside)
