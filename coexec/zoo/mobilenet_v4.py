"""MobileNetV4 of convolutions alone, and MobileNetEdgeTPU, from which its first layers come.

Sources: Qin et al., "MobileNetV4: Universal models for the mobile ecosystem", 2024, as in timm;
Howard, Gupta, "Introducing the next generation of on-device vision models: MobileNetV3 and
MobileNetEdgeTPU", 2019, as in the authors' code.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from coexec.zoo.efficientnet import Stage, stage_of
from coexec.zoo.layers import NONE, Layers, Map, divisible


@dataclass(frozen=True)
class Universal:
    """An inverted residual whose depthwise convolutions stand where their kernels are not 0.

    ``before`` widening it so many times, and ``between`` widening and narrowing it.
    """

    before: int
    between: int
    stride: int
    expansion: int
    out: int
    blocks: int = 1


@dataclass(frozen=True)
class Plain:
    """A convolution, normalised and activated."""

    kernel: int
    stride: int
    out: int


SMALL = (
    Plain(3, 2, 32),
    Plain(1, 1, 32),
    Plain(3, 2, 96),
    Plain(1, 1, 64),
    Universal(5, 5, 2, 3, 96),
    Universal(0, 3, 1, 2, 96, 4),
    Universal(3, 0, 1, 4, 96),
    Universal(3, 3, 2, 6, 128),
    Universal(5, 5, 1, 4, 128),
    Universal(0, 5, 1, 4, 128),
    Universal(0, 5, 1, 3, 128),
    Universal(0, 3, 1, 4, 128, 2),
)
MEDIUM = (
    Universal(3, 5, 2, 4, 80),
    Universal(3, 3, 1, 2, 80),
    Universal(3, 5, 2, 6, 160),
    Universal(3, 3, 1, 4, 160, 2),
    Universal(3, 5, 1, 4, 160),
    Universal(3, 3, 1, 4, 160),
    Universal(3, 0, 1, 4, 160),
    Universal(0, 0, 1, 2, 160),
    Universal(3, 0, 1, 4, 160),
    Universal(5, 5, 2, 6, 256),
    Universal(5, 5, 1, 4, 256),
    Universal(3, 5, 1, 4, 256, 2),
    Universal(0, 0, 1, 4, 256),
    Universal(3, 0, 1, 4, 256),
    Universal(3, 5, 1, 2, 256),
    Universal(5, 5, 1, 4, 256),
    Universal(0, 0, 1, 4, 256, 2),
    Universal(5, 0, 1, 2, 256),
)
STEM, LAST, HEAD = 32, 960, 1280
FUSED_FIRST = Stage(4, 3, 2, 48, 1, excited=False, fused=True)
"""The first block of the medium network."""
EDGE_TPU = (
    Stage(1, 3, 1, 16, 1, excited=False, fused=True),
    Stage(8, 3, 2, 32, 1, excited=False, fused=True),
    Stage(4, 3, 1, 32, 3, excited=False, fused=True),
    Stage(8, 3, 2, 48, 1, excited=False, fused=True),
    Stage(4, 3, 1, 48, 3, excited=False, fused=True),
    Stage(8, 3, 2, 96, 1, excited=False),
    Stage(4, 3, 1, 96, 3, excited=False),
    Stage(8, 3, 1, 96, 1, excited=False),
    Stage(4, 3, 1, 96, 3, excited=False),
    Stage(8, 5, 2, 160, 1, excited=False),
    Stage(4, 5, 1, 160, 3, excited=False),
    Stage(8, 3, 1, 192, 1, excited=False),
)


def mobilenet_v4_small(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("mobilenet_v4_small", batch, (3, image_size, image_size), seed)
    return _classified(layers, layers.conv(layers.x, STEM, 3, stride=2), SMALL, classes)


def mobilenet_v4_medium(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 256, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("mobilenet_v4_medium", batch, (3, image_size, image_size), seed)
    x = stage_of(layers, layers.conv(layers.x, STEM, 3, stride=2), FUSED_FIRST)
    return _classified(layers, x, MEDIUM, classes)


def mobilenet_edgetpu(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("mobilenet_edgetpu", batch, (3, image_size, image_size), seed)
    x = layers.conv(layers.x, STEM, 3, stride=2)
    for stage in EDGE_TPU:
        x = stage_of(layers, x, stage)
    return layers.logits(layers.conv(x, HEAD), classes)


def _classified(
    layers: Layers, x: Map, plan: tuple[Plain | Universal, ...], classes: int
) -> ir.Model:
    for part in plan:
        if isinstance(part, Plain):
            x = layers.conv(x, part.out, part.kernel, stride=part.stride)
        else:
            for block in range(part.blocks):
                x = _universal(layers, x, part, part.stride if block == 0 else 1)
    mean = layers.squeeze(layers.conv(x, LAST))
    return layers.logits(layers.conv(mean, HEAD), classes)


def _universal(layers: Layers, x: Map, part: Universal, stride: int) -> Map:
    h = x
    if part.before:
        # The later depthwise convolution halves the size, where there is one.
        early = 1 if part.between else stride
        h = layers.depthwise(h, part.before, stride=early, act=NONE)
    h = layers.conv(h, divisible(part.expansion * x.channels))
    if part.between:
        h = layers.depthwise(h, part.between, stride=stride)
    h = layers.conv(h, part.out, act=NONE)
    return layers.add(h, x) if stride == 1 and part.out == x.channels else h
