"""MobileNet (the first) and MobileNetV3.

Sources: Howard et al., "MobileNets: Efficient convolutional neural networks for mobile vision
applications", 2017; "Searching for MobileNetV3", 2019, tables 1 and 2, as in torchvision; Qin et
al., "FD-MobileNet: Improved MobileNet with a fast downsampling strategy", 2018.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from coexec.zoo.builder import dropout, linear
from coexec.zoo.layers import HARDSIGMOID, HARDSWISH, NONE, RELU, Layers, Map, divisible

V1 = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)
"""Channels and stride of each pair of convolutions."""
FAST = ((64, 2), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 4, (1024, 1))
"""Of FD-MobileNet."""


@dataclass(frozen=True)
class Bneck:
    """A row of the paper's tables: kernel, channels inside and of the result, what stands there."""

    kernel: int
    inside: int
    out: int
    excited: bool
    act: str
    stride: int


_RE, _HS = RELU, HARDSWISH
LARGE = (
    Bneck(3, 16, 16, False, _RE, 1),
    Bneck(3, 64, 24, False, _RE, 2),
    Bneck(3, 72, 24, False, _RE, 1),
    Bneck(5, 72, 40, True, _RE, 2),
    Bneck(5, 120, 40, True, _RE, 1),
    Bneck(5, 120, 40, True, _RE, 1),
    Bneck(3, 240, 80, False, _HS, 2),
    Bneck(3, 200, 80, False, _HS, 1),
    Bneck(3, 184, 80, False, _HS, 1),
    Bneck(3, 184, 80, False, _HS, 1),
    Bneck(3, 480, 112, True, _HS, 1),
    Bneck(3, 672, 112, True, _HS, 1),
    Bneck(5, 672, 160, True, _HS, 2),
    Bneck(5, 960, 160, True, _HS, 1),
    Bneck(5, 960, 160, True, _HS, 1),
)
SMALL = (
    Bneck(3, 16, 16, True, _RE, 2),
    Bneck(3, 72, 24, False, _RE, 2),
    Bneck(3, 88, 24, False, _RE, 1),
    Bneck(5, 96, 40, True, _HS, 2),
    Bneck(5, 240, 40, True, _HS, 1),
    Bneck(5, 240, 40, True, _HS, 1),
    Bneck(5, 120, 48, True, _HS, 1),
    Bneck(5, 144, 48, True, _HS, 1),
    Bneck(5, 288, 96, True, _HS, 2),
    Bneck(5, 576, 96, True, _HS, 1),
    Bneck(5, 576, 96, True, _HS, 1),
)
STEM, HIDDEN = 16, 1280


def mobilenet_v1(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    width: float = 1.0,
    fast: bool = False,
    bare: bool = False,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes), all channels times ``width``.

    ``fast`` is FD-MobileNet, which makes images small early; with ``bare`` nothing stands behind
    depthwise convolutions.
    """
    layers = Layers("mobilenet_v1", batch, (3, image_size, image_size), seed)
    plan = FAST if fast else V1
    return layers.logits(v1_features(layers, plan, width, bare=bare)[-1], classes)


def v1_features(
    layers: Layers,
    plan: Sequence[tuple[int, int]] = V1,
    width: float = 1.0,
    *,
    bare: bool = False,
) -> list[Map]:
    """What the stem and each pair of convolutions results in."""
    found = [layers.conv(layers.x, int(32 * width), 3, stride=2)]
    act = NONE if bare else RELU
    for out, stride in plan:
        h = layers.depthwise(found[-1], 3, stride=stride, act=act, norm=not bare, bias=False)
        found.append(layers.conv(h, int(out * width)))
    return found


def mobilenet_v3_large(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    width: float = 1.0,
    minimalistic: bool = False,
    wide_head: bool = False,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes).

    All channels times ``width``; ``minimalistic``: no excitation, 3 x 3 kernels, ReLU everywhere.
    With ``wide_head`` the last convolution never has fewer channels than at full width, and 1280
    features follow, as in the pytorchcv collection.
    """
    layers = _layers("mobilenet_v3_large", batch, image_size, seed, minimalistic)
    blocks = _changed(LARGE, width, minimalistic)
    if wide_head:
        head = divisible(6 * LARGE[-1].out * max(width, 1.0)), HIDDEN
    else:
        head = 6 * blocks[-1].out, divisible(HIDDEN * max(width, 1.0))
    return _network(layers, blocks, divisible(STEM * width), head, classes)


def mobilenet_v3_small(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    width: float = 1.0,
    minimalistic: bool = False,
    wide_head: bool = False,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes), as :func:`mobilenet_v3_large`."""
    layers = _layers("mobilenet_v3_small", batch, image_size, seed, minimalistic)
    blocks = _changed(SMALL, width, minimalistic)
    if wide_head:
        head = divisible(6 * SMALL[-1].out * max(width, 1.0)), HIDDEN
    else:
        head = 6 * blocks[-1].out, divisible(1024 * max(width, 1.0))
    return _network(layers, blocks, divisible(STEM * width), head, classes)


def _layers(name: str, batch: int | None, image_size: int, seed: int, minimalistic: bool) -> Layers:
    act = RELU if minimalistic else HARDSWISH
    return Layers(name, batch, (3, image_size, image_size), seed, act)


def _changed(blocks: tuple[Bneck, ...], width: float, minimalistic: bool) -> tuple[Bneck, ...]:
    """The blocks at another width, or of plain operators only."""
    if width != 1:
        blocks = tuple(
            replace(each, inside=divisible(each.inside * width), out=divisible(each.out * width))
            for each in blocks
        )
    if minimalistic:
        blocks = tuple(replace(each, kernel=3, excited=False, act=RELU) for each in blocks)
    return blocks


def _network(
    layers: Layers, blocks: tuple[Bneck, ...], stem: int, head: tuple[int, int], classes: int
) -> ir.Model:
    """``head``: channels of the last convolution, and features in front of the classes."""
    last, hidden = head
    x = layers.conv(layers.x, stem, 3, stride=2)
    for block in blocks:
        x = _bneck(layers, x, block)
    x = layers.squeeze(layers.conv(x, last))
    flat = layers.net.op("Flatten", "flatten", [x.value], {"axis": 1})
    flat = layers.dense(flat, (x.channels, hidden), layers.act)
    flat = dropout(layers.net, flat, "dropout", 0.2)
    return layers.net.finish(linear(layers.net, flat, "fc", (hidden, classes)), classes)


def _bneck(layers: Layers, x: Map, block: Bneck) -> Map:
    return narrowed(layers, widened(layers, x, block), x, block)


def widened(layers: Layers, x: Map, block: Bneck) -> Map:
    """What the depthwise convolution of a block is given."""
    if block.inside == x.channels:
        return x
    return layers.conv(x, block.inside, act=block.act)


def narrowed(layers: Layers, h: Map, x: Map, block: Bneck) -> Map:
    """The rest of a block on ``x``, whose widened channels are ``h``."""
    h = layers.depthwise(h, block.kernel, stride=block.stride, act=block.act)
    if block.excited:
        h = layers.excite(h, divisible(block.inside / 4), gate=HARDSIGMOID)
    h = layers.conv(h, block.out, act=NONE)
    return layers.add(h, x) if block.stride == 1 and block.out == x.channels else h
