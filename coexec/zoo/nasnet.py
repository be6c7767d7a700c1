"""NASNet-A, large and mobile: cells that a search has found, on the results of the two before.

Source: Zoph et al., "Learning transferable architectures for scalable image recognition", 2018, as
in timm.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from coexec.zoo.layers import NONE, RELU, Layers, Map


@dataclass(frozen=True)
class Sizes:
    """Channels of a cell's branches in the first stage, those of the stem, cells of a stage."""

    channels: int
    stem: int
    cells: int


LARGE, MOBILE = Sizes(168, 96, 6), Sizes(44, 32, 4)


def nasnet_large(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 331, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("nasnet_large", batch, (3, image_size, image_size), seed)
    return layers.logits(_features(layers, LARGE), classes)


def nasnet_mobile(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("nasnet_mobile", batch, (3, image_size, image_size), seed)
    return layers.logits(_features(layers, MOBILE), classes)


def _features(layers: Layers, sizes: Sizes) -> Map:
    """What the last cell results in, activated."""
    start = layers.conv(layers.x, sizes.stem, 3, stride=2, pad=0, act=NONE)
    few = sizes.channels // 4
    before = _reduced(layers, start, _fitted(layers, start, few), few)
    left = _halved(layers, start, 2 * few)
    x = _reduced(layers, left, _fitted(layers, before, 2 * few), 2 * few)
    for stage in range(3):
        width = sizes.channels << stage
        for cell in range(sizes.cells):
            # The result before the first cell of a stage is still twice as large.
            left = (_fitted if cell else _halved)(layers, before, width)
            before, x = x, _normal(layers, left, _fitted(layers, x, width))
        if stage < 2:
            left = _fitted(layers, before, 2 * width)
            # In the mobile network the next cell is given what this one is, not the one before.
            before = before if sizes is LARGE else x
            x = _reduced(layers, left, _fitted(layers, x, 2 * width), 2 * width)
    return layers.activate(x, RELU)


def _normal(layers: Layers, left: Map, right: Map) -> Map:
    """Five sums of what both results become at their size, beside the one on the ``left``."""
    found = [
        layers.add(_separable(layers, right, 5), _separable(layers, left, 3)),
        layers.add(_separable(layers, left, 5), _separable(layers, left, 3)),
        layers.add(layers.average_pool(right, 3, 1, 1), left),
        layers.add(layers.average_pool(left, 3, 1, 1), layers.average_pool(left, 3, 1, 1)),
        layers.add(_separable(layers, right, 3), right),
    ]
    return layers.concat(left, *found)


def _reduced(layers: Layers, left: Map, right: Map, out: int) -> Map:
    """Four sums of what both results become at half of their size."""
    first = layers.add(
        _separable(layers, right, 5, stride=2), _separable(layers, left, 7, out, stride=2)
    )
    second = layers.add(layers.max_pool(right, 3, 2, 1), _separable(layers, left, 7, out, stride=2))
    third = layers.add(
        layers.average_pool(right, 3, 2, 1), _separable(layers, left, 5, out, stride=2)
    )
    fourth = layers.add(layers.average_pool(first, 3, 1, 1), second)
    fifth = layers.add(_separable(layers, first, 3), layers.max_pool(right, 3, 2, 1))
    return layers.concat(second, third, fourth, fifth)


def _separable(
    layers: Layers, x: Map, kernel: int, out: int | None = None, *, stride: int = 1
) -> Map:
    """Two separable convolutions, normalised each, with an activation in front."""
    width = out or x.channels
    for step in (stride, 1):
        h = layers.activate(x, RELU)
        h = layers.conv(
            h,
            h.channels,
            kernel,
            stride=step,
            groups=h.channels,
            norm=False,
            bias=False,
            act=NONE,
        )
        x = layers.conv(h, width, act=NONE)
    return x


def _fitted(layers: Layers, x: Map, out: int) -> Map:
    return layers.conv(layers.activate(x, RELU), out, act=NONE)


def _halved(layers: Layers, x: Map, out: int) -> Map:
    """Every second pixel, and every second one a pixel further, convolved each."""
    h, halves = layers.activate(x, RELU), []
    for _ in range(2):
        few = layers.average_pool(h, 1, 2)
        halves.append(layers.conv(few, out // 2, norm=False, bias=False, act=NONE))
    return layers.norm(layers.concat(*halves))
