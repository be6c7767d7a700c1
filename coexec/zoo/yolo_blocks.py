"""Blocks of YOLO's generations; sources stand in :mod:`coexec.zoo.yolo`."""

from __future__ import annotations

from dataclasses import replace

from coexec.zoo.layers import NONE, Layers, Map

BINS = 16
"""Distances of a box's side that its head tells apart."""


def c3(layers: Layers, x: Map, out: int, depth: int, *, added: bool = True) -> Map:
    """Bottlenecks on half of the channels beside a 1 x 1 convolution (YOLOv5)."""
    h = layers.conv(x, out // 2)
    for _ in range(depth):
        inner = layers.conv(layers.conv(h, out // 2), out // 2, 3)
        h = layers.add(h, inner) if added else inner
    return layers.conv(layers.concat(h, layers.conv(x, out // 2)), out)


def c2f(layers: Layers, x: Map, out: int, depth: int, *, added: bool = True) -> Map:
    """Bottlenecks of 3 x 3 convolutions, all of whose results are joined (YOLOv8)."""
    half = out // 2
    parts = layers.split(layers.conv(x, out), half, half)
    for _ in range(depth):
        h = layers.conv(layers.conv(parts[-1], half, 3), half, 3)
        parts.append(layers.add(h, parts[-1]) if added else h)
    return layers.conv(layers.concat(*parts), out)


def c3k2(
    layers: Layers, x: Map, out: int, ratio: float, *, nested: bool = False, depth: int = 1
) -> Map:
    """``depth`` bottlenecks, or blocks of two (``nested``), on ``ratio`` of the channels."""
    inside = int(out * ratio)
    parts = layers.split(layers.conv(x, 2 * inside), inside, inside)
    for _ in range(depth):
        parts.append((_nested if nested else _bottleneck)(layers, parts[-1], inside))
    return layers.conv(layers.concat(*parts), out)


def _bottleneck(layers: Layers, x: Map, out: int) -> Map:
    return layers.add(layers.conv(layers.conv(x, out // 2, 3), out, 3), x)


def _nested(layers: Layers, x: Map, out: int) -> Map:
    """Two residual blocks on half of the channels beside a 1 x 1 convolution."""
    half = out // 2
    h = layers.conv(x, half)
    for _ in range(2):
        h = layers.add(layers.conv(layers.conv(h, half, 3), half, 3), h)
    return layers.conv(layers.concat(h, layers.conv(x, half)), out)


def sppf(layers: Layers, x: Map, out: int) -> Map:
    """Three pools of 5 x 5 one behind the other, all joined."""
    found = [layers.conv(x, x.channels // 2)]
    for _ in range(3):
        found.append(layers.max_pool(found[-1], 5, 1, 2))
    return layers.conv(layers.concat(*found), out)


def elan_tiny(layers: Layers, x: Map, inside: int, out: int) -> Map:
    """Two 1 x 1 and two 3 x 3 convolutions, all joined (YOLOv7)."""
    beside, h = layers.conv(x, inside), layers.conv(x, inside)
    three = layers.conv(h, inside, 3)
    return layers.conv(layers.concat(layers.conv(three, inside, 3), three, h, beside), out)


def sppcsp_tiny(layers: Layers, x: Map, out: int) -> Map:
    """Pools of three sizes side by side, beside a 1 x 1 convolution (YOLOv7)."""
    beside, h = layers.conv(x, out), layers.conv(x, out)
    pools = [layers.max_pool(h, size, 1, size // 2) for size in (13, 9, 5)]
    h = layers.conv(layers.concat(*pools, h), out)
    return layers.conv(layers.concat(h, beside), out)


def attention_stage(layers: Layers, x: Map, depth: int = 1) -> Map:
    """Attention between the pixels of half of the channels, ``depth`` times (YOLO11)."""
    half = x.channels // 2
    kept, h = layers.split(layers.conv(x, x.channels), half, half)
    for _ in range(depth):
        h = layers.add(h, _attention(layers, h))
        h = layers.add(h, layers.conv(layers.conv(h, 2 * half), half, act=NONE))
    return layers.conv(layers.concat(kept, h), x.channels)


def _attention(layers: Layers, x: Map) -> Map:
    """Keys have half as many features as values, which are convolved for their places."""
    net, name, pixels = layers.net, layers.name("attention"), x.height * x.width
    heads, each = x.channels // 64, 64
    both = layers.conv(x, 2 * x.channels, act=NONE)
    shape = net.constant(f"{name}.shape", (-1, heads, 2 * each, pixels), "int64")
    value = net.op("Reshape", f"{name}.heads", [both.value, shape])
    sizes = net.constant(f"{name}.sizes", (each // 2, each // 2, each), "int64")
    q, k, v = net.ops("Split", f"{name}.split", [value, sizes], {"axis": 2}, outputs=3)
    q = net.op("Transpose", f"{name}.queries", [q], {"perm": (0, 1, 3, 2)})
    scale = net.constant(f"{name}.scale.value", (each // 2) ** -0.5, "float32")
    scores = net.op("Mul", f"{name}.scale", [net.op("MatMul", f"{name}.scores", [q, k]), scale])
    weights = net.op("Softmax", f"{name}.softmax", [scores], {"axis": -1})
    weights = net.op("Transpose", f"{name}.weights", [weights], {"perm": (0, 1, 3, 2)})
    flat = net.constant(f"{name}.flat", (-1, x.channels, x.height, x.width), "int64")
    mixed = net.op(
        "Reshape", f"{name}.mixed", [net.op("MatMul", f"{name}.mix", [v, weights]), flat]
    )
    placed = replace(x, value=net.op("Reshape", f"{name}.values", [v, flat]))
    h = layers.add(replace(x, value=mixed), layers.depthwise(placed, 3, act=NONE))
    return layers.conv(h, x.channels, act=NONE)


def decoupled(layers: Layers, x: Map, widths: tuple[int, int], classes: int, *, light: bool) -> Map:
    """Boxes and scores of a map, from convolutions of their own; ``light`` scores are separable."""
    boxed, scored = widths
    h = layers.conv(layers.conv(x, boxed, 3), boxed, 3)
    sides = _distances(layers, layers.conv(h, 4 * BINS, norm=False, act=NONE))
    h = x
    for _ in range(2):
        h = layers.conv(layers.depthwise(h, 3), scored) if light else layers.conv(h, scored, 3)
    scores = layers.conv(h, classes, norm=False, act=NONE)
    return layers.concat(sides, layers.activate(scores, "sigmoid"))


def _distances(layers: Layers, x: Map) -> Map:
    """The mean of each side's bins, (N, 4, height, width)."""
    net, name = layers.net, layers.name("distances")
    shape = net.constant(f"{name}.shape", (-1, 4, BINS, x.height * x.width), "int64")
    value = net.op("Reshape", f"{name}.bins", [x.value, shape])
    value = net.op("Transpose", f"{name}.last", [value], {"perm": (0, 2, 1, 3)})
    value = net.op("Softmax", f"{name}.softmax", [value], {"axis": 1})
    image = net.constant(f"{name}.image", (-1, BINS, 4 * x.height, x.width), "int64")
    bins = Map(net.op("Reshape", f"{name}.flat", [value, image]), BINS, 4 * x.height, x.width)
    mean = layers.conv(bins, 1, norm=False, bias=False, act=NONE)
    sides = net.constant(f"{name}.sides", (-1, 4, x.height, x.width), "int64")
    return Map(net.op("Reshape", f"{name}.side", [mean.value, sides]), 4, x.height, x.width)
