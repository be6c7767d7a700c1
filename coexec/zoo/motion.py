"""The first order motion model: key points of a face, and the face moved as they say.

Source: Siarohin et al., "First order motion model for image animation", 2019, for talking faces.
An input of the second network holds an image, then places and matrices of its key points, then
those of the key points that it is to have.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from coexec.zoo.builder import Net
from coexec.zoo.layers import NONE, RELU, SIGMOID, Layers, Map

SEEN, MOVED, WIDEST, BLOCKS = 32, 64, 1024, 5
"""Channels that the first block doubles, of both networks, those that none goes beyond, blocks
down and up."""
POINTS, VARIANCE = 10, 0.01
"""Key points, and how far they reach."""
HALVINGS, RESIDUAL = 2, 6
SAMPLED = (("mode", "linear"), ("padding_mode", "zeros"), ("align_corners", 0))
BLUR, FACTOR, SHARPNESS = 13, 4, 10.0
"""Side of the filter in front of the small image, what it is smaller by; scores are times this."""


def motion_key_points(
    batch: int | None = None, classes: int = 10, *, image_size: int = 256, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> place of each key point, and how its surroundings turn and stretch.

    The result is (N, 6 classes): 2 coordinates and a 2 x 2 matrix of each.
    """
    layers = Layers("motion_key_points", batch, (3, image_size, image_size), seed)
    x = _hourglass(layers, _small(layers), SEEN)
    heat = layers.conv(x, classes, 7, pad=0, norm=False, act=NONE)
    turns = layers.conv(x, 4 * classes, 7, pad=0, norm=False, act=NONE)
    net, pixels = layers.net, heat.height * heat.width

    sharpness = net.constant("sharpness", SHARPNESS, "float32")
    scores = net.op(
        "Mul", "sharp", [_shaped(net, heat.value, "heat", -1, classes, pixels), sharpness]
    )
    weights = net.op("Softmax", "weights", [scores], {"axis": -1})
    places = net.constant("places.grid", _grid(heat), "float32")
    found = net.op("MatMul", "places", [weights, places])
    apart = _shaped(net, turns.value, "turns", -1, classes, 4, pixels)
    weighted = net.op(
        "Mul", "turns.weighted", [apart, _shaped(net, weights, "near", -1, classes, 1, pixels)]
    )
    axes = net.constant("turns.axes", (-1,), "int64")
    turned = net.op("ReduceSum", "turns.sum", [weighted, axes], {"keepdims": 0})
    both = net.op("Concat", "points", [found, turned], {"axis": -1})
    return net.finish(net.op("Flatten", "points.flat", [both], {"axis": 1}), 6 * classes)


def motion_generator(
    batch: int | None = None, classes: int = 3, *, image_size: int = 256, seed: int = 0
) -> ir.Model:
    """(N, 3 size^2 + 2 (20 + 40)) -> an image (N, classes, size, size) of the moved face."""
    pixels = 3 * image_size**2
    sizes = (pixels, 2 * POINTS, 4 * POINTS, 2 * POINTS, 4 * POINTS)
    net = Net("motion_generator", (batch, sum(sizes)), seed=seed)
    lengths = net.constant("inputs.sizes", sizes, "int64")
    image, *points = net.ops("Split", "inputs", [net.x, lengths], {"axis": 1}, outputs=len(sizes))
    value = _shaped(net, image, "image", -1, 3, image_size, image_size)
    layers = Layers.behind(net, Map(value, 3, image_size, image_size))
    flow, seen = _motion(layers, points)
    x = layers.conv(layers.x, MOVED, 7, bias=True)
    for _ in range(HALVINGS):
        x = layers.average_pool(layers.conv(x, 2 * x.channels, 3, bias=True), 2, 2)
    moved = replace(x, value=net.op("GridSample", "moved", [x.value, flow], dict(SAMPLED)))
    x = layers.multiply(moved, seen)
    for _ in range(RESIDUAL):
        h = layers.conv(layers.activate(layers.norm(x), RELU), x.channels, 3, bias=True)
        x = layers.add(layers.conv(h, x.channels, 3, norm=False, act=NONE), x)
    for _ in range(HALVINGS):
        x = layers.conv(layers.resize(x, 2), x.channels // 2, 3, bias=True)
    return layers.finish(layers.conv(x, classes, 7, norm=False, act=SIGMOID))


def _motion(layers: Layers, points: list[ir.Value]) -> tuple[ir.Value, Map]:
    """Where each pixel of the small image comes from, and how much of it can be seen."""
    net, small = layers.net, _small(layers)
    pixels, parts = small.height * small.width, POINTS + 1
    source, driving = (
        _shaped(net, value, f"{name}.places", -1, POINTS, 1, 2)
        for name, value in (("source", points[0]), ("driving", points[2]))
    )
    grid = net.constant("grid", [[_grid(small)]], "float32")
    heat = net.op(
        "Sub",
        "heat",
        [_bumps(net, grid, value, name) for name, value in (("to", driving), ("from", source))],
    )
    pads = net.constant("heat.pads", (0, 1, 0, 0, 0, 0), "int64")
    heat = net.op("Pad", "heat.background", [heat, pads])
    ways = net.op("MatMul", "ways", [net.op("Sub", "apart", [grid, driving]), _turned(net, points)])
    ways = net.op("Sub", "ways.moved", [net.op("Add", "ways.source", [ways, source]), grid])
    # The background stays where it is.
    pads = net.constant("ways.pads", (0, 1, 0, 0, 0, 0, 0, 0), "int64")
    ways = net.op("Add", "ways.all", [net.op("Pad", "ways.background", [ways, pads]), grid])
    times = net.constant("copies.times", (1, parts, 1, 1), "int64")
    copies = net.op("Tile", "copies", [small.value, times])
    copies = _shaped(net, copies, "copies.apart", -1, 3, small.height, small.width)
    places = _shaped(net, ways, "ways.grid", -1, small.height, small.width, 2)
    moved = net.op("GridSample", "copies.moved", [copies, places], dict(SAMPLED))
    moved = _shaped(net, moved, "copies.flat", -1, parts, 3, pixels)
    heat = _shaped(net, heat, "heat.flat", -1, parts, 1, pixels)
    joined = net.op("Concat", "guesses", [heat, moved], {"axis": 2})
    shape = -1, 4 * parts, small.height, small.width
    guesses = Map(_shaped(net, joined, "guesses.image", *shape), 4 * parts, *shape[2:])
    x = _hourglass(layers, guesses, MOVED)
    mask = layers.conv(x, parts, 7, norm=False, act=NONE)
    weights = net.op("Softmax", "mask", [mask.value], {"axis": 1})
    weights = _shaped(net, weights, "mask.flat", -1, parts, pixels, 1)
    axes = net.constant("flow.axes", (1,), "int64")
    flow = net.op("Mul", "flow.weighted", [ways, weights])
    flow = net.op("ReduceSum", "flow", [flow, axes], {"keepdims": 0})
    flow = _shaped(net, flow, "flow.grid", -1, small.height, small.width, 2)
    return flow, layers.conv(x, 1, 7, norm=False, act=SIGMOID)


def _bumps(net: Net, grid: ir.Value, places: ir.Value, name: str) -> ir.Value:
    """(N, points, pixels): how near each pixel is to a point."""
    apart = net.op("Sub", f"{name}.apart", [grid, places])
    square = net.op("Mul", f"{name}.square", [apart, apart])
    axes = net.constant(f"{name}.axes", (-1,), "int64")
    total = net.op("ReduceSum", f"{name}.sum", [square, axes], {"keepdims": 0})
    factor = net.constant(f"{name}.factor", -0.5 / VARIANCE, "float32")
    return net.op("Exp", f"{name}.near", [net.op("Mul", f"{name}.scaled", [total, factor])])


def _turned(net: Net, points: list[ir.Value]) -> ir.Value:
    """For rows: the source's matrices times the inverse of the others, transposed."""
    source, driving = (
        _shaped(net, value, f"{name}.turns", -1, POINTS, 2, 2)
        for name, value in (("source", points[1]), ("driving", points[3]))
    )
    flat = _shaped(net, driving, "turns.flat", -1, POINTS, 4)
    a, b, c, d = net.ops("Split", "turns.parts", [flat], {"axis": -1, "num_outputs": 4}, outputs=4)
    products = [
        net.op("Mul", f"turns.product{place}", list(pair))
        for place, pair in enumerate(((a, d), (b, c)))
    ]
    size = net.op("Sub", "turns.determinant", products)
    b, c = (net.op("Neg", f"turns.minus{place}", [x]) for place, x in enumerate((b, c)))
    # Of the inverse transposed: its columns are the rows of the inverse.
    adjoint = net.op("Concat", "turns.adjoint", [d, c, b, a], {"axis": -1})
    inverse = net.op("Div", "turns.inverse", [adjoint, size])
    inverse = _shaped(net, inverse, "turns.square", -1, POINTS, 2, 2)
    across = net.op("Transpose", "turns.across", [source], {"perm": (0, 1, 3, 2)})
    return net.op("MatMul", "turns", [inverse, across])


def _small(layers: Layers) -> Map:
    """Blurred, every fourth pixel."""
    x = layers.depthwise(layers.x, BLUR, norm=False, bias=False, act=NONE)
    return layers.resize(x, 1 / FACTOR)


def _shaped(net: Net, value: ir.Value, name: str, *shape: int) -> ir.Value:
    return net.op("Reshape", name, [value, net.constant(f"{name}.shape", shape, "int64")])


def _hourglass(layers: Layers, x: Map, expansion: int) -> Map:
    """Blocks that halve the size, then as many that double it beside what was there."""
    found = [x]
    for block in range(BLOCKS):
        out = min(WIDEST, expansion << (block + 1))
        x = layers.conv(found[-1], out, 3, bias=True)
        found.append(layers.average_pool(x, 2, 2))
    x = found.pop()
    for block in reversed(range(BLOCKS)):
        out = min(WIDEST, expansion << block)
        x = layers.conv(layers.resize(x, 2), out, 3, bias=True)
        x = layers.concat(x, found.pop())
    return x


def _grid(x: Map) -> list[tuple[float, float]]:
    """Coordinates of each pixel, from -1 to 1."""
    return [
        (2 * column / (x.width - 1) - 1, 2 * row / (x.height - 1) - 1)
        for row in range(x.height)
        for column in range(x.width)
    ]
