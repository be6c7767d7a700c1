"""HRNet for poses, 32 channels wide.

Source: Sun et al., "Deep high-resolution representation learning for human pose estimation", 2019.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import NONE, RELU, Layers, Map
from coexec.zoo.residual import basic_block, bottleneck

WIDTH, BLOCKS = 32, 4
MODULES = {2: 1, 3: 4, 4: 3}
"""Modules of the stages with so many branches."""


def hrnet_w32_pose(
    batch: int | None = None,
    classes: int = 17,
    *,
    height: int = 256,
    width: int = 192,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, height, width) -> (N, classes, height / 4, width / 4): a map for each joint."""
    layers = Layers("hrnet_w32_pose", batch, (3, height, width), seed)
    x = layers.conv(layers.conv(layers.x, 64, 3, stride=2), 64, 3, stride=2)
    for _ in range(BLOCKS):
        x = bottleneck(layers, x, (64, 256))
    branches = [layers.conv(x, WIDTH, 3)]
    for count, modules in MODULES.items():
        beside = x if count == 2 else branches[-1]
        branches.append(layers.conv(beside, WIDTH << (count - 1), 3, stride=2))
        for module in range(modules):
            last = count == max(MODULES) and module == modules - 1
            branches = _module(layers, branches, 1 if last else count)
    return layers.finish(layers.conv(branches[0], classes, norm=False, act=NONE))


def _module(layers: Layers, branches: list[Map], results: int) -> list[Map]:
    """Blocks in each branch, then the first ``results`` sums of all of them."""
    found = []
    for x in branches:
        h = x
        for _ in range(BLOCKS):
            h = basic_block(layers, h, x.channels)
        found.append(h)
    return [_joined(layers, found, place) for place in range(results)]


def _joined(layers: Layers, branches: list[Map], place: int) -> Map:
    like, total = branches[place], branches[place]
    for other, x in enumerate(branches):
        if other > place:
            up = layers.conv(x, like.channels, act=NONE)
            total = layers.add(total, layers.resize_to(up, like, linear=False))
        for step in range(place - other):
            final = step == place - other - 1
            out = like.channels if final else x.channels
            x = layers.conv(x, out, 3, stride=2, act=NONE if final else RELU)  # noqa: PLW2901
        if other < place:
            total = layers.add(total, x)
    return layers.activate(total, RELU)
