"""Stacks of inverted residuals found by search: EfficientNets, MnasNet, ProxylessNAS.

Sources: Tan, Le, "EfficientNet: Rethinking model scaling for convolutional neural networks", 2019;
"EfficientNetV2: Smaller models and faster training", 2021; Tan et al., "MnasNet: Platform-aware
neural architecture search for mobile", 2019. Sizes as in torchvision, EfficientNetV2-B0 as
in Keras. Cai et al., "ProxylessNAS: Direct neural architecture search on target task and
hardware", 2019, has the network found for phones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil

import onnx_ir as ir

from coexec.zoo.builder import require
from coexec.zoo.layers import NONE, RELU, RELU6, SILU, Layers, Map, divisible


@dataclass(frozen=True)
class Stage:
    """``blocks`` inverted residuals; ``fused`` ones have one full convolution instead of two.

    With ``pointwise`` a 1 x 1 convolution comes first even where it widens nothing.
    """

    expansion: int
    kernel: int
    stride: int
    out: int
    blocks: int
    excited: bool = True
    fused: bool = False
    pointwise: bool = False

    def scaled(self, width: float, depth: float) -> Stage:
        """With so many times the channels and blocks."""
        out, blocks = divisible(self.out * width), ceil(self.blocks * depth)
        return replace(self, out=out, blocks=blocks)


B0 = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)
V2_S = (
    Stage(1, 3, 1, 24, 2, excited=False, fused=True),
    Stage(4, 3, 2, 48, 4, excited=False, fused=True),
    Stage(4, 3, 2, 64, 4, excited=False, fused=True),
    Stage(4, 3, 2, 128, 6),
    Stage(6, 3, 1, 160, 9),
    Stage(6, 3, 2, 256, 15),
)
V2_M = (
    Stage(1, 3, 1, 24, 3, excited=False, fused=True),
    Stage(4, 3, 2, 48, 5, excited=False, fused=True),
    Stage(4, 3, 2, 80, 5, excited=False, fused=True),
    Stage(4, 3, 2, 160, 7),
    Stage(6, 3, 1, 176, 14),
    Stage(6, 3, 2, 304, 18),
    Stage(6, 3, 1, 512, 5),
)
V2_L = (
    Stage(1, 3, 1, 32, 4, excited=False, fused=True),
    Stage(4, 3, 2, 64, 7, excited=False, fused=True),
    Stage(4, 3, 2, 96, 7, excited=False, fused=True),
    Stage(4, 3, 2, 192, 10),
    Stage(6, 3, 1, 224, 19),
    Stage(6, 3, 2, 384, 25),
    Stage(6, 3, 1, 640, 7),
)
V2_B0 = (
    Stage(1, 3, 1, 16, 1, excited=False, fused=True),
    Stage(4, 3, 2, 32, 2, excited=False, fused=True),
    Stage(4, 3, 2, 48, 2, excited=False, fused=True),
    Stage(4, 3, 2, 96, 3),
    Stage(6, 3, 1, 112, 5),
    Stage(6, 3, 2, 192, 8),
)
PROXYLESS = (
    ((3, 5, 2, 32), (3, 3, 1, 32)),
    ((3, 7, 2, 40), (3, 3, 1, 40), (3, 5, 1, 40), (3, 5, 1, 40)),
    ((6, 7, 2, 80), (3, 5, 1, 80), (3, 5, 1, 80), (3, 5, 1, 80)),
    ((6, 5, 1, 96), (3, 5, 1, 96), (3, 5, 1, 96), (3, 5, 1, 96)),
    ((6, 7, 2, 192), (6, 7, 1, 192), (3, 7, 1, 192), (3, 7, 1, 192)),
    ((6, 7, 1, 320),),
)
"""Blocks by stage: expansion, kernel, stride, channels of the result."""
MNASNET = (
    Stage(3, 3, 2, 24, 3, excited=False),
    Stage(3, 5, 2, 40, 3, excited=False),
    Stage(6, 5, 2, 80, 3, excited=False),
    Stage(6, 3, 1, 96, 2, excited=False),
    Stage(6, 5, 2, 192, 4, excited=False),
    Stage(6, 3, 1, 320, 1, excited=False),
)


MNASNET_A1 = (
    Stage(6, 3, 2, 24, 2, excited=False),
    Stage(3, 5, 2, 40, 3),
    Stage(6, 3, 2, 80, 4, excited=False),
    Stage(6, 3, 1, 112, 2),
    Stage(6, 5, 2, 160, 3),
    Stage(6, 3, 1, 320, 1, excited=False),
)
MNASNET_SMALL = (
    Stage(3, 3, 2, 16, 1, excited=False),
    Stage(6, 3, 2, 16, 2, excited=False),
    Stage(6, 5, 2, 32, 4),
    Stage(6, 3, 1, 32, 3),
    Stage(6, 5, 2, 88, 3),
    Stage(6, 3, 1, 144, 1, excited=False),
)
SCALES = (
    (1.0, 1.0),
    (1.0, 1.1),
    (1.1, 1.2),
    (1.2, 1.4),
    (1.4, 1.8),
    (1.6, 2.2),
    (1.8, 2.6),
    (2.0, 3.1),
    (2.2, 3.6),
)
"""Channels and blocks of EfficientNet-B0 to B8, in times those of B0."""
V2_SIZES = 4
"""EfficientNetV2-B0 to B3 are scaled like the first version's."""


def efficientnet(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    number: int = 0,
    lite: bool = False,
    seed: int = 0,
) -> ir.Model:
    """EfficientNet-B``number``: (N, 3, size, size) -> (N, classes).

    ``lite``: without excitation, with ReLU6; what comes first and last is that of number 0.

    Raises:
        UsageError: no such network.
    """
    known = len(SCALES) - 1
    require(0 <= number <= known, f"EfficientNets are B0 to B{known}, not B{number}")
    act = RELU6 if lite else SILU
    layers = Layers("efficientnet", batch, (3, image_size, image_size), seed, act)
    width, depth = SCALES[number]
    if lite:
        inner = tuple(replace(stage.scaled(width, depth), excited=False) for stage in B0)
        ends = (replace(inner[place], blocks=B0[place].blocks) for place in (0, -1))
        first, last = ends
        return _network(layers, 32, (first, *inner[1:-1], last), 1280, classes, 0.2)
    stages = tuple(stage.scaled(width, depth) for stage in B0)
    return _network(layers, divisible(32 * width), stages, divisible(1280 * width), classes, 0.2)


def efficientnet_v2(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    number: int = 0,
    seed: int = 0,
) -> ir.Model:
    """EfficientNetV2-B``number``: (N, 3, size, size) -> (N, classes).

    Raises:
        UsageError: no such network.
    """
    require(0 <= number < V2_SIZES, f"EfficientNetV2 is B0 to B{V2_SIZES - 1}, not B{number}")
    layers = Layers("efficientnet_v2", batch, (3, image_size, image_size), seed, SILU)
    width, depth = SCALES[number]
    stages = tuple(stage.scaled(width, depth) for stage in V2_B0)
    return _network(layers, divisible(32 * width), stages, divisible(1280 * width), classes, 0.2)


def mnasnet_a1(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """MnasNet-A1, with squeeze and excitation: (N, 3, size, size) -> (N, classes)."""
    layers = Layers("mnasnet_a1", batch, (3, image_size, image_size), seed, RELU)
    return _separable_first(layers, (32, 16), MNASNET_A1, classes)


def mnasnet_small(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """MnasNet, small: (N, 3, size, size) -> (N, classes)."""
    layers = Layers("mnasnet_small", batch, (3, image_size, image_size), seed, RELU)
    return _separable_first(layers, (8, 8), MNASNET_SMALL, classes)


def efficientnet_b0(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("efficientnet_b0", batch, (3, image_size, image_size), seed, SILU)
    return _network(layers, 32, B0, 1280, classes, 0.2)


def efficientnet_b4(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 380, seed: int = 0
) -> ir.Model:
    """1.4 times as wide and 1.8 times as deep: (N, 3, size, size) -> (N, classes)."""
    layers = Layers("efficientnet_b4", batch, (3, image_size, image_size), seed, SILU)
    stages = tuple(stage.scaled(1.4, 1.8) for stage in B0)
    return _network(layers, 48, stages, 1792, classes, 0.4)


def efficientnet_v2_s(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 384, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("efficientnet_v2_s", batch, (3, image_size, image_size), seed, SILU)
    return _network(layers, 24, V2_S, 1280, classes, 0.2)


def efficientnet_v2_m(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 480, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("efficientnet_v2_m", batch, (3, image_size, image_size), seed, SILU)
    return _network(layers, 24, V2_M, 1280, classes, 0.3)


def efficientnet_v2_l(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 480, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("efficientnet_v2_l", batch, (3, image_size, image_size), seed, SILU)
    return _network(layers, 32, V2_L, 1280, classes, 0.4)


def efficientnet_v2_b0(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("efficientnet_v2_b0", batch, (3, image_size, image_size), seed, SILU)
    return _network(layers, 32, V2_B0, 1280, classes, 0.2)


def proxyless_mobile(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("proxyless_mobile", batch, (3, image_size, image_size), seed, RELU)
    x = layers.conv(layers.x, 32, 3, stride=2)
    x = layers.conv(layers.depthwise(x, 3), 16, act=NONE)
    for stage in PROXYLESS:
        for expansion, kernel, stride, out in stage:
            x = stage_of(layers, x, Stage(expansion, kernel, stride, out, 1, excited=False))
    return layers.logits(layers.conv(x, 1280), classes)


def mnasnet(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    width: float = 1.0,
    seed: int = 0,
) -> ir.Model:
    """MnasNet-B1, all channels but the last times ``width``: (N, 3, size, size) -> (N, classes)."""
    layers = Layers("mnasnet", batch, (3, image_size, image_size), seed, RELU)
    stages = tuple(stage.scaled(width, 1) for stage in MNASNET)
    return _separable_first(layers, (divisible(32 * width), divisible(16 * width)), stages, classes)


def _separable_first(
    layers: Layers, stem: tuple[int, int], stages: tuple[Stage, ...], classes: int
) -> ir.Model:
    """``stem``: channels of the first convolution, and of the pair behind it."""
    x = layers.conv(layers.x, stem[0], 3, stride=2)
    x = layers.conv(layers.depthwise(x, 3), stem[1], act=NONE)
    for stage in stages:
        x = stage_of(layers, x, stage)
    return layers.logits(layers.conv(x, 1280), classes, drop=0.2)


def _network(
    layers: Layers, stem: int, stages: tuple[Stage, ...], head: int, classes: int, drop: float
) -> ir.Model:
    x = layers.conv(layers.x, stem, 3, stride=2)
    for stage in stages:
        x = stage_of(layers, x, stage)
    return layers.logits(layers.conv(x, head), classes, drop=drop)


def stage_of(layers: Layers, x: Map, stage: Stage) -> Map:
    """The stage's inverted residuals, one behind the other."""
    for block in range(stage.blocks):
        stride = stage.stride if block == 0 else 1
        h = _fused(layers, x, stage, stride) if stage.fused else _inverted(layers, x, stage, stride)
        x = layers.add(h, x) if stride == 1 and h.channels == x.channels else h
    return x


def _inverted(layers: Layers, x: Map, stage: Stage, stride: int) -> Map:
    widened = stage.expansion > 1 or stage.pointwise
    h = layers.conv(x, stage.expansion * x.channels) if widened else x
    h = layers.depthwise(h, stage.kernel, stride=stride)
    if stage.excited:
        h = layers.excite(h, max(1, x.channels // 4), inner=layers.act)
    return layers.conv(h, stage.out, act=NONE)


def _fused(layers: Layers, x: Map, stage: Stage, stride: int) -> Map:
    if stage.expansion == 1:
        return layers.conv(x, stage.out, stage.kernel, stride=stride)
    h = layers.conv(x, stage.expansion * x.channels, stage.kernel, stride=stride)
    return layers.conv(h, stage.out, act=NONE)
