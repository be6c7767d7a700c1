"""BGNet, which finds what is camouflaged by its edges, on Res2Net-50.

Sources: Sun et al., "Boundary-guided camouflaged object detection", 2022; Gao et al., "Res2Net: A
new multi-scale backbone architecture", 2021, in the form with three convolutions as its stem.
"""

from __future__ import annotations

from math import log2

import onnx_ir as ir

from coexec.zoo.builder import conv
from coexec.zoo.layers import NONE, SIGMOID, Layers, Map

STAGES, WIDTH, SCALES = ((3, 64), (4, 128), (6, 256), (3, 512)), 26, 4
"""Blocks and base channels of each stage; channels of a part where there are 64, and parts."""
REDUCED = (64, 128, 256, 256)
"""Channels of each stage that the way up starts from."""


def bgnet(
    batch: int | None = None, classes: int = 1, *, image_size: int = 416, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes, size, size)."""
    layers = Layers("bgnet", batch, (3, image_size, image_size), seed)
    found = _features(layers)
    edge = layers.activate(_edge(layers, found[3], found[0]), SIGMOID)
    reduced = [
        layers.conv(_guided(layers, x, edge), out, bias=True)
        for x, out in zip(found, REDUCED, strict=True)
    ]
    x = reduced[-1]
    for beside in reversed(reduced[:-1]):
        x = _joined(layers, beside, x)
    x = layers.conv(x, classes, norm=False, act=NONE)
    return layers.finish(layers.resize_to(x, layers.x))


def _features(layers: Layers) -> list[Map]:
    """What each of Res2Net's stages results in."""
    x = layers.conv(layers.conv(layers.x, 32, 3, stride=2), 32, 3)
    x, found = layers.max_pool(layers.conv(x, 64, 3), 3, 2, 1), []
    for stage, (blocks, base) in enumerate(STAGES):
        for block in range(blocks):
            first = block == 0
            x = _scaled(layers, x, base, 2 if stage and first else 1, first=first)
        found.append(x)
    return found


def _scaled(layers: Layers, x: Map, base: int, stride: int, *, first: bool) -> Map:
    """A bottleneck whose parts are convolved one behind the other, each with the last added."""
    width = base * WIDTH // 64
    parts = layers.split(layers.conv(x, SCALES * width), *([width] * SCALES))
    seen: list[Map] = []
    for part in parts[:-1]:
        h = part if first or not seen else layers.add(seen[-1], part)
        seen.append(layers.conv(h, width, 3, stride=stride))
    last = layers.average_pool(parts[-1], 3, stride, 1) if first else parts[-1]
    h = layers.conv(layers.concat(*seen, last), 4 * base, act=NONE)
    if first:
        x = layers.average_pool(x, stride, stride) if stride > 1 else x
        x = layers.conv(x, 4 * base, act=NONE)
    return layers.activate(layers.add(h, x), layers.act)


def _edge(layers: Layers, deep: Map, fine: Map) -> Map:
    up = layers.resize_to(layers.conv(deep, 256, bias=True), fine)
    x = layers.concat(up, layers.conv(fine, 64, bias=True))
    x = layers.conv(layers.conv(x, 256, 3), 256, 3)
    return layers.conv(x, 1, norm=False, act=NONE)


def _guided(layers: Layers, x: Map, edge: Map) -> Map:
    """A map with its edges stressed, its channels weighted by their neighbours' means."""
    net, name = layers.net, layers.name("guided")
    x = layers.add(layers.multiply(x, layers.resize_to(edge, x)), x)
    x = layers.conv(x, x.channels, 3)
    taps = int((log2(x.channels) + 1) / 2)
    taps += 1 - taps % 2
    shape = net.constant(f"{name}.row.shape", (-1, 1, x.channels), "int64")
    row = net.op("Reshape", f"{name}.row", [layers.squeeze(x).value, shape])
    row = conv(net, row, name, (1, 1), (taps,), pad=taps // 2, bias=False)
    shape = net.constant(f"{name}.shape", (-1, x.channels, 1, 1), "int64")
    gate = Map(net.op("Reshape", f"{name}.gate", [row, shape]), x.channels, 1, 1)
    return layers.multiply(x, layers.activate(gate, SIGMOID))


def _joined(layers: Layers, x: Map, deep: Map) -> Map:
    """Quarters of the channels, each seen with its neighbours and dilated more and more."""
    joined = layers.concat(x, layers.resize_to(deep, x))
    x = layers.conv(joined, x.channels, bias=True)
    quarter = x.channels // 4
    parts = layers.split(x, *([quarter] * 4))
    found: list[Map] = []
    for place, part in enumerate(parts):
        h = layers.add(part, found[-1]) if found else part
        h = layers.add(h, parts[place + 1]) if place < 3 else h
        found.append(layers.conv(h, quarter, 3, dilation=place + 1))
    h = layers.conv(layers.concat(*found), x.channels, bias=True)
    return layers.conv(layers.add(x, h), x.channels, 3)
