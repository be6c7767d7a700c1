"""PIDNet-S for street scenes: a branch for details, one for context and one for edges.

Source: Xu et al., "PIDNet: A real-time semantic segmentation network inspired by PID controllers",
2023, without the heads that only training has.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from coexec.zoo.layers import NONE, SIGMOID, Layers, Map
from coexec.zoo.residual import basic_block, bottleneck
from coexec.zoo.street_scenes import POOLS, ahead, relu

BASE, POOLED, HEAD = 32, 96, 128
"""Channels of the stem, of each mean and of the head."""


def pidnet_s(
    batch: int | None = None,
    classes: int = 19,
    *,
    height: int = 1024,
    width: int = 2048,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, height, width) -> (N, classes, height / 8, width / 8)."""
    layers = Layers("pidnet_s", batch, (3, height, width), seed)
    x = layers.x
    for _ in range(2):
        x = layers.conv(x, BASE, 3, stride=2, bias=True)
    x = relu(layers, _blocks(layers, x, BASE, 2))
    x = relu(layers, _blocks(layers, x, 2 * BASE, 2, stride=2))
    fine = _blocks(layers, x, 2 * BASE, 2)
    edge = basic_block(layers, x, BASE, act=NONE)
    for out, found in ((4 * BASE, BASE), (8 * BASE, 2 * BASE)):
        if out != 4 * BASE:
            fine = _blocks(layers, relu(layers, fine), 2 * BASE, 2)
            edge = bottleneck(layers, relu(layers, edge), (BASE, 2 * BASE), act=NONE)
        x = relu(layers, _blocks(layers, x, out, 3, stride=2))
        fine = _guided(layers, fine, layers.conv(x, 2 * BASE, act=NONE))
        more = layers.conv(x, found, 3, act=NONE)
        edge = layers.add(edge, layers.resize_to(more, edge))
    fine = bottleneck(layers, relu(layers, fine), (2 * BASE, 4 * BASE), act=NONE)
    edge = bottleneck(layers, relu(layers, edge), (2 * BASE, 4 * BASE), act=NONE)
    x = bottleneck(layers, x, (8 * BASE, 16 * BASE), 2, act=NONE)
    x = bottleneck(layers, x, (8 * BASE, 16 * BASE), act=NONE)
    x = layers.resize_to(_pyramid(layers, x, 4 * BASE), fine)
    x = layers.conv(ahead(layers, _balanced(layers, fine, x, edge)), HEAD, 3)
    return layers.finish(layers.conv(x, classes, norm=False, act=NONE))


def _blocks(layers: Layers, x: Map, out: int, count: int, *, stride: int = 1) -> Map:
    """Blocks one behind the other; the last one's sum has no activation."""
    for block in range(count):
        act = NONE if block == count - 1 else None
        x = basic_block(layers, x, out, stride if block == 0 else 1, act=act)
    return x


def _guided(layers: Layers, x: Map, y: Map) -> Map:
    """Details and context, mixed by how alike they are at each pixel."""
    inside = x.channels // 2
    there = layers.resize_to(layers.conv(y, inside, act=NONE), x)
    alike = layers.multiply(layers.conv(x, inside, act=NONE), there)
    net, name = layers.net, layers.name("alike")
    axes = net.constant(f"{name}.axes", (1,), "int64")
    total = net.op("ReduceSum", name, [alike.value, axes], {"keepdims": 1})
    share = layers.activate(Map(total, 1, x.height, x.width), SIGMOID)
    y = layers.resize_to(y, x)
    return layers.add(layers.multiply(x, _rest(layers, share)), layers.multiply(y, share))


def _rest(layers: Layers, share: Map) -> Map:
    """One less the share."""
    net, name = layers.net, layers.name("rest")
    one = net.constant(f"{name}.one", 1.0, "float32")
    return replace(share, value=net.op("Sub", name, [one, share.value]))


def _balanced(layers: Layers, fine: Map, context: Map, edge: Map) -> Map:
    """Details where there are edges, and context elsewhere."""
    share = layers.activate(edge, SIGMOID)
    inside = layers.add(layers.multiply(context, _rest(layers, share)), fine)
    border = layers.add(context, layers.multiply(fine, share))
    parts = [layers.conv(each, each.channels, act=NONE) for each in (inside, border)]
    return layers.add(*parts)


def _pyramid(layers: Layers, x: Map, out: int) -> Map:
    """Means over more and more of the image, convolved together."""
    first = _few(layers, x, POOLED)
    means = [layers.average_pool(x, kernel, stride, kernel // 2) for kernel, stride in POOLS]
    found = [
        layers.add(layers.resize_to(_few(layers, mean, POOLED), x), first)
        for mean in (*means, layers.squeeze(x))
    ]
    h = ahead(layers, layers.concat(*found))
    h = layers.conv(h, h.channels, 3, groups=len(found), norm=False, bias=False, act=NONE)
    return layers.add(_few(layers, layers.concat(first, h), out), _few(layers, x, out))


def _few(layers: Layers, x: Map, out: int) -> Map:
    return layers.conv(ahead(layers, x), out, norm=False, bias=False, act=NONE)
