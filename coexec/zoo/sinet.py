"""SINet, which finds the person in a portrait.

Source: Park et al., "SINet: Extreme lightweight portrait segmentation networks with spatial squeeze
modules and information blocking decoder", 2020, in the authors' form for 224 x 224.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import NONE, PRELU, Layers, Map
from coexec.zoo.shufflenet import shuffled

FIRST, MIDDLE, LAST = 16, 48, 96
"""Channels at a quarter and an eighth of the size."""
Branch = tuple[int, int]
"""Kernel of a branch, and how many times smaller the map is that it sees."""
FINE: tuple[tuple[Branch, Branch], ...] = (((3, 1), (5, 1)), ((3, 1), (3, 1)))
COARSE: tuple[tuple[Branch, Branch], ...] = (
    ((3, 1), (5, 1)),
    ((3, 1), (3, 1)),
    ((5, 1), (3, 2)),
    ((5, 2), (3, 4)),
    ((3, 1), (3, 1)),
    ((5, 1), (5, 1)),
    ((3, 2), (3, 4)),
    ((3, 1), (5, 2)),
)
"""The two branches of each module."""


def sinet(
    batch: int | None = None, classes: int = 2, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes, size, size)."""
    layers = Layers("sinet", batch, (3, image_size, image_size), seed, PRELU)
    x = layers.conv(layers.x, 12, 3, stride=2)
    start = _separable(layers, x, FIRST, 1)
    x = fine = _modules(layers, start, MIDDLE, FINE)
    x = _prelu(layers, layers.norm(layers.concat(start, x)))
    start = _separable(layers, x, MIDDLE, 2)
    x = _modules(layers, start, LAST, COARSE)
    x = _prelu(layers, layers.norm(layers.concat(start, x)))
    coarse = layers.conv(x, classes, norm=False, bias=False, act=NONE)
    coarse = layers.norm(layers.resize(coarse, 2, linear=True))
    x = layers.multiply(layers.conv(fine, classes), _unsure(layers, coarse))
    x = layers.norm(layers.resize(layers.add(x, coarse), 2, linear=True))
    x = layers.resize(x, 2, linear=True)
    return layers.finish(layers.conv(x, classes, 3, norm=False, bias=False, act=NONE))


def _separable(layers: Layers, x: Map, out: int, divide: int) -> Map:
    """A depthwise convolution that halves the size, weighted channels, a 1 x 1 convolution."""
    h = layers.conv(x, x.channels, 3, stride=2, groups=x.channels, norm=False, bias=False, act=NONE)
    if divide > 1:
        h = layers.excite(h, h.channels // divide, inner=PRELU, gate=PRELU)
    else:
        h = layers.multiply(h, layers.conv(layers.squeeze(h), h.channels, norm=False))
    return layers.conv(h, out)


def _modules(layers: Layers, x: Map, out: int, modules: tuple[tuple[Branch, Branch], ...]) -> Map:
    for branches in modules:
        half = out // 2
        h = layers.conv(x, half, groups=2, norm=False, bias=False, act=NONE)
        h = shuffled(layers, h)
        h = layers.concat(*(_branch(layers, h, half, *branch) for branch in branches))
        h = layers.add(x, h) if x.channels == out else h
        x = _prelu(layers, layers.norm(h))
    return x


def _branch(layers: Layers, x: Map, out: int, kernel: int, smaller: int) -> Map:
    """A separable convolution on a map that may be ``smaller`` times."""
    h = layers.average_pool(x, smaller, smaller) if smaller > 1 else x
    h = layers.depthwise(h, kernel)
    h = layers.conv(h, out, norm=False, bias=False, act=NONE)
    return layers.norm(layers.resize_to(h, x))


def _unsure(layers: Layers, x: Map) -> Map:
    """One less the largest share of a class at each place."""
    net, name = layers.net, layers.name("unsure")
    share = net.op("Softmax", f"{name}.softmax", [x.value], {"axis": 1})
    axes = net.constant(f"{name}.axes", (1,), "int64")
    best = net.op("ReduceMax", f"{name}.best", [share, axes], {"keepdims": 1})
    one = net.constant(f"{name}.one", 1.0, "float32")
    return Map(net.op("Sub", name, [one, best]), 1, x.height, x.width)


def _prelu(layers: Layers, x: Map) -> Map:
    return layers.activate(x, PRELU)
