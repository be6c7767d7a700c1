"""Lite-HRNet-18 for poses: HRNet's maps side by side, of shuffled channels that weigh each other.

Source: Yu et al., "Lite-HRNet: A lightweight high-resolution network", 2021, as in MMPose.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import NONE, RELU, SIGMOID, Layers, Map
from coexec.zoo.shufflenet import shuffled

CHANNELS, STEM, BLOCKS, REDUCED = (40, 80, 160, 320), 32, 2, 8
MODULES = {2: 2, 3: 4, 4: 2}
"""Modules of the stages with so many branches."""


def litehrnet_18(
    batch: int | None = None,
    classes: int = 17,
    *,
    height: int = 256,
    width: int = 192,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, height, width) -> (N, classes, height / 4, width / 4): a map for each joint."""
    layers = Layers("litehrnet_18", batch, (3, height, width), seed)
    branches = [_stem(layers)]
    for count, modules in MODULES.items():
        branches.append(_separable(layers, branches[-1], CHANNELS[count - 1], stride=2))
        if count == 2:
            branches[0] = _separable(layers, branches[0], CHANNELS[0])
        for _ in range(modules):
            for _ in range(BLOCKS):
                branches = _weighted(layers, branches)
            branches = [_joined(layers, branches, place) for place in range(count)]
    x: Map | None = None
    for place in reversed(range(len(branches))):
        each = branches[place]
        if x is not None:
            each = layers.add(each, layers.resize_to(x, each))
        x = _separable(layers, each, CHANNELS[max(place - 1, 0)])
    assert x is not None
    return layers.finish(layers.conv(x, classes, norm=False, act=NONE))


def _stem(layers: Layers) -> Map:
    """A quarter of the size, halves of the channels by two ways."""
    half = STEM // 2
    first, second = layers.split(layers.conv(layers.x, STEM, 3, stride=2), half, half)
    first = _separable(layers, first, half, stride=2)
    second = _separable(layers, layers.conv(second, STEM), half, stride=2)
    return shuffled(layers, layers.concat(first, second))


def _separable(layers: Layers, x: Map, out: int, *, stride: int = 1, act: str = RELU) -> Map:
    return layers.conv(layers.depthwise(x, 3, stride=stride, act=NONE), out, act=act)


def _weighted(layers: Layers, branches: list[Map]) -> list[Map]:
    """Half of the channels, weighted by what all branches see and by their own means."""
    parts = [layers.split(x, x.channels // 2, x.channels // 2) for x in branches]
    seen = [second for _, second in parts]
    least = seen[-1]
    few = [
        layers.average_pool(x, x.height // least.height, x.height // least.height)
        for x in seen[:-1]
    ]
    h = layers.concat(*few, least)
    total = h.channels
    h = layers.conv(layers.conv(h, total // REDUCED), total, act=SIGMOID)
    gates = layers.split(h, *(x.channels for x in seen))
    found = []
    for (kept, x), gate in zip(parts, gates, strict=True):
        h = layers.multiply(x, layers.resize_to(gate, x, linear=False))
        h = layers.excite(layers.depthwise(h, 3, act=NONE), x.channels // 4)
        found.append(shuffled(layers, layers.concat(kept, h)))
    return found


def _joined(layers: Layers, branches: list[Map], place: int) -> Map:
    like, total = branches[place], branches[place]
    for other, x in enumerate(branches):
        if other > place:
            up = layers.conv(x, like.channels, act=NONE)
            total = layers.add(total, layers.resize_to(up, like, linear=False))
        for step in range(place - other):
            final = step == place - other - 1
            out = like.channels if final else x.channels
            x = _separable(layers, x, out, stride=2, act=NONE if final else RELU)  # noqa: PLW2901
        if other < place:
            total = layers.add(total, x)
    return layers.activate(total, RELU)
