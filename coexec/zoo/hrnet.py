"""HRNet: maps of several sizes side by side, for poses, points of faces and street scenes.

Sources: Sun et al., "Deep high-resolution representation learning for human pose estimation", 2019;
Wang et al., "Deep high-resolution representation learning for visual recognition", 2020, for faces;
Yuan et al., "Object-contextual representations for semantic segmentation", 2020, at 48 channels.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from coexec.zoo.layers import NONE, RELU, Layers, Map
from coexec.zoo.residual import basic_block, bottleneck

BLOCKS = 4
MODULES = {2: 1, 3: 4, 4: 3}
"""Modules of the stages with so many branches."""
OBJECTS, KEYS = 512, 256
"""Features of a pixel and of what it is compared by, where objects are its context."""


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
    finest = _features(layers, 32, 1)[0]
    return layers.finish(layers.conv(finest, classes, norm=False, act=NONE))


def hrnet_w18_face(
    batch: int | None = None, classes: int = 29, *, image_size: int = 256, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes, size / 4, size / 4): a map for each point."""
    layers = Layers("hrnet_w18_face", batch, (3, image_size, image_size), seed)
    x = _side_by_side(layers, _features(layers, 18, 4, linear=True))
    x = layers.conv(x, x.channels, bias=True)
    return layers.finish(layers.conv(x, classes, norm=False, act=NONE))


def hrnet_w48_ocr(
    batch: int | None = None,
    classes: int = 19,
    *,
    height: int = 1024,
    width: int = 2048,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, height, width) -> (N, classes, height / 4, width / 4)."""
    layers = Layers("hrnet_w48_ocr", batch, (3, height, width), seed)
    x = _side_by_side(layers, _features(layers, 48, 4, linear=True))
    coarse = layers.conv(layers.conv(x, x.channels, bias=True), classes, norm=False, act=NONE)
    x = layers.conv(x, OBJECTS, 3, bias=True)
    context = _compared(layers, x, _regions(layers, x, coarse))
    x = layers.conv(layers.concat(context, x), OBJECTS)
    return layers.finish(layers.conv(x, classes, norm=False, act=NONE))


def _features(layers: Layers, width: int, results: int, *, linear: bool = False) -> list[Map]:
    """The first ``results`` of four maps, the finest one first and ``width`` channels wide.

    ``linear`` interpolation joins coarse maps to fine ones, or else the nearest pixel.
    """
    x = layers.conv(layers.conv(layers.x, 64, 3, stride=2), 64, 3, stride=2)
    for _ in range(BLOCKS):
        x = bottleneck(layers, x, (64, 256))
    branches = [layers.conv(x, width, 3)]
    for count, modules in MODULES.items():
        beside = x if count == 2 else branches[-1]
        branches.append(layers.conv(beside, width << (count - 1), 3, stride=2))
        for module in range(modules):
            last = count == max(MODULES) and module == modules - 1
            branches = _module(layers, branches, results if last else count, linear=linear)
    return branches


def _module(layers: Layers, branches: list[Map], results: int, *, linear: bool) -> list[Map]:
    """Blocks in each branch, then the first ``results`` sums of all of them."""
    found = []
    for x in branches:
        h = x
        for _ in range(BLOCKS):
            h = basic_block(layers, h, x.channels)
        found.append(h)
    return [_joined(layers, found, place, linear=linear) for place in range(results)]


def _joined(layers: Layers, branches: list[Map], place: int, *, linear: bool) -> Map:
    like, total = branches[place], branches[place]
    for other, x in enumerate(branches):
        if other > place:
            up = layers.conv(x, like.channels, act=NONE)
            total = layers.add(total, layers.resize_to(up, like, linear=linear))
        for step in range(place - other):
            final = step == place - other - 1
            out = like.channels if final else x.channels
            x = layers.conv(x, out, 3, stride=2, act=NONE if final else RELU)  # noqa: PLW2901
        if other < place:
            total = layers.add(total, x)
    return layers.activate(total, RELU)


def _side_by_side(layers: Layers, maps: list[Map]) -> Map:
    """All maps at the size of the finest."""
    return layers.concat(*(layers.resize_to(each, maps[0]) for each in maps))


def _regions(layers: Layers, x: Map, coarse: Map) -> Map:
    """The mean features of each class's region, by its ``coarse`` scores: one pixel a class."""
    net, name, pixels = layers.net, layers.name("regions"), x.height * x.width
    shape = net.constant(f"{name}.scores.shape", (-1, coarse.channels, pixels), "int64")
    share = net.op("Reshape", f"{name}.scores", [coarse.value, shape])
    share = net.op("Softmax", f"{name}.softmax", [share], {"axis": 1})
    shape = net.constant(f"{name}.features.shape", (-1, x.channels, pixels), "int64")
    value = net.op("Reshape", f"{name}.features", [x.value, shape])
    value = net.op("Transpose", f"{name}.pixels", [value], {"perm": (0, 2, 1)})
    value = net.op("MatMul", f"{name}.mean", [share, value])
    value = net.op("Transpose", f"{name}.last", [value], {"perm": (0, 2, 1)})
    shape = net.constant(f"{name}.shape", (-1, x.channels, coarse.channels, 1), "int64")
    return Map(net.op("Reshape", name, [value, shape]), x.channels, coarse.channels, 1)


def _compared(layers: Layers, x: Map, regions: Map) -> Map:
    """For each pixel the regions it looks like, mixed."""
    net, name, pixels = layers.net, layers.name("compared"), x.height * x.width
    q = layers.conv(layers.conv(x, KEYS), KEYS)
    k = layers.conv(layers.conv(regions, KEYS), KEYS)
    v = layers.conv(regions, KEYS)
    parts = []
    for part, each, count in (("q", q, pixels), ("k", k, k.height), ("v", v, v.height)):
        shape = net.constant(f"{name}.{part}.shape", (-1, KEYS, count), "int64")
        value = net.op("Reshape", f"{name}.{part}", [each.value, shape])
        if part != "k":
            value = net.op("Transpose", f"{name}.{part}.last", [value], {"perm": (0, 2, 1)})
        parts.append(value)
    scores = net.op("MatMul", f"{name}.scores", parts[:2])
    scale = net.constant(f"{name}.scale.value", KEYS**-0.5, "float32")
    scores = net.op("Mul", f"{name}.scale", [scores, scale])
    weights = net.op("Softmax", f"{name}.softmax", [scores], {"axis": -1})
    value = net.op("MatMul", f"{name}.mix", [weights, parts[2]])
    value = net.op("Transpose", f"{name}.first", [value], {"perm": (0, 2, 1)})
    shape = net.constant(f"{name}.image", (-1, KEYS, x.height, x.width), "int64")
    value = net.op("Reshape", name, [value, shape])
    return layers.conv(replace(x, value=value, channels=KEYS), x.channels)
