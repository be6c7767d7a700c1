"""MixNet: depthwise convolutions of several kernels side by side.

Source: Tan, Le, "MixConv: Mixed depthwise convolutional kernels", 2019. Sizes as in the pytorchcv
collection.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from coexec.zoo.layers import NONE, RELU, SILU, Layers, Map, divisible


@dataclass(frozen=True)
class Unit:
    """Channels of the result, into how many parts each convolution is divided, and sizes.

    ``parts``: of the one that widens ``factor`` times, of the depthwise one, of the one that
    narrows. Excitation squeezes to ``1 / squeezed`` of the unit's input; 0: there is none.
    """

    out: int
    parts: tuple[int, int, int]
    factor: int = 6
    squeezed: int = 2
    stride: int = 1


SMALL = (
    Unit(24, (2, 1, 2), squeezed=0, stride=2),
    Unit(24, (2, 1, 2), factor=3, squeezed=0),
    Unit(40, (1, 3, 1), stride=2),
    *[Unit(40, (2, 2, 2))] * 3,
    Unit(80, (1, 3, 2), squeezed=4, stride=2),
    *[Unit(80, (1, 2, 2), squeezed=4)] * 2,
    Unit(120, (2, 3, 2)),
    *[Unit(120, (2, 4, 2), factor=3)] * 2,
    Unit(200, (1, 5, 1), stride=2),
    *[Unit(200, (1, 4, 2))] * 2,
)
MEDIUM = (
    Unit(32, (2, 3, 2), squeezed=0, stride=2),
    Unit(32, (2, 1, 2), factor=3, squeezed=0),
    Unit(40, (1, 4, 1), stride=2),
    *[Unit(40, (2, 2, 2))] * 3,
    Unit(80, (1, 3, 1), squeezed=4, stride=2),
    *[Unit(80, (2, 4, 2), squeezed=4)] * 3,
    Unit(120, (1, 1, 1)),
    *[Unit(120, (2, 4, 2), factor=3)] * 3,
    Unit(200, (1, 4, 1), stride=2),
    *[Unit(200, (1, 4, 2))] * 3,
)
STEMS = 16, 24
"""Channels of the first convolution, of the small and of the medium form."""
HEAD, RECTIFIED = 1536, 2
"""Channels of the last convolution; so many units have ReLU, all others x times its sigmoid."""


def mixnet(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    medium: bool = False,
    width: float = 1.0,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes), all channels times ``width``.

    MixNet-L is the ``medium`` form, 1.3 times as wide.
    """
    units, stem = (MEDIUM, STEMS[1]) if medium else (SMALL, STEMS[0])
    layers = Layers("mixnet", batch, (3, image_size, image_size), seed)
    x = layers.conv(layers.x, divisible(stem * width), 3, stride=2)
    x = layers.add(layers.conv(layers.depthwise(x, 3), x.channels, act=NONE), x)
    for place, unit in enumerate(units):
        act = RELU if place < RECTIFIED else SILU
        x = _unit(layers, x, unit, divisible(unit.out * width), act)
    return layers.logits(layers.conv(x, HEAD), classes)


def _unit(layers: Layers, x: Map, unit: Unit, out: int, act: str) -> Map:
    widening, deep, narrowing = unit.parts
    h = _mixed(layers, x, unit.factor * x.channels, widening)
    h = _spread(layers, layers.activate(h, act), deep, unit.stride)
    h = layers.activate(h, act)
    if unit.squeezed:
        h = layers.excite(h, h.channels // (unit.factor * unit.squeezed), inner=act)
    h = _mixed(layers, h, out, narrowing)
    return layers.add(h, x) if unit.stride == 1 and x.channels == out else h


def _mixed(layers: Layers, x: Map, out: int, parts: int) -> Map:
    """1 x 1 convolutions of parts of the channels, normalised together."""
    if parts == 1:
        return layers.conv(x, out, act=NONE)
    sizes = zip(layers.split(x, *_divided(x.channels, parts)), _divided(out, parts), strict=True)
    found = [layers.conv(h, size, norm=False, bias=False, act=NONE) for h, size in sizes]
    return layers.norm(layers.concat(*found))


def _spread(layers: Layers, x: Map, parts: int, stride: int) -> Map:
    """Depthwise convolutions of 3 x 3, 5 x 5 ... of parts of the channels, normalised together."""
    if parts == 1:
        return layers.depthwise(x, 3, stride=stride, act=NONE)
    found = [
        layers.depthwise(h, 3 + 2 * place, stride=stride, norm=False, bias=False, act=NONE)
        for place, h in enumerate(layers.split(x, *_divided(x.channels, parts)))
    ]
    return layers.norm(layers.concat(*found))


def _divided(channels: int, parts: int) -> list[int]:
    """Equal parts; what is left over goes to the first."""
    each = channels // parts
    return [channels - each * (parts - 1), *[each] * (parts - 1)]
