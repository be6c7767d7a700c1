"""RTMDet and RTMPose, medium, on CSPNeXt: large depthwise kernels beside full convolutions.

Sources: Lyu et al., "RTMDet: An empirical study of designing real-time object detectors", 2022, its
heads' convolutions counted at each size; Jiang et al., "RTMPose: Real-time multi-person pose
estimation based on MMPose", 2023, for all points of a body.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import HARDSIGMOID, NONE, SIGMOID, SILU, Layers, Map

STEM, STAGES = 24, ((96, 2), (192, 4), (384, 4), (768, 2))
"""Channels of the stem; those of each stage, and its blocks."""
HEAD, POOLS = 192, (5, 9, 13)
"""Channels of the detector's heads, and sizes of the pools behind the last stage."""
FEATURES, KEYS, SCALE = 256, 128, 2
"""Of a joint, of what it is compared by, and places for each pixel that its coordinates have."""


def rtmdet_m(
    batch: int | None = None, classes: int = 80, *, image_size: int = 640, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, places, classes + 4)."""
    layers = Layers("rtmdet_m", batch, (3, image_size, image_size), seed, SILU)
    _, *found = _features(layers)
    tops = [found[-1]]
    for beside in reversed(found[:-1]):
        tops[-1] = layers.conv(tops[-1], beside.channels)
        x = layers.concat(layers.resize(tops[-1], 2), beside)
        tops.append(_partial(layers, x, beside.channels, 2, added=False))
    maps = [tops[-1]]
    for beside, like in zip(reversed(tops[:-1]), found[1:], strict=True):
        x = layers.concat(layers.conv(maps[-1], maps[-1].channels, 3, stride=2), beside)
        maps.append(_partial(layers, x, like.channels, 2, added=False))
    heads = [_head(layers, layers.conv(x, HEAD, 3), classes) for x in maps]
    return layers.anchors(heads, classes + 4)


def rtmpose_m(
    batch: int | None = None,
    classes: int = 133,
    *,
    height: int = 256,
    width: int = 192,
    seed: int = 0,
) -> ir.Model:
    """How likely a joint has each x and y: (N, 3, height, width) -> (N, classes, 2 * (h + w))."""
    layers = Layers("rtmpose_m", batch, (3, height, width), seed, SILU)
    net, deep = layers.net, _features(layers)[-1]
    x = layers.conv(deep, classes, 7, norm=False, act=NONE)
    pixels = x.height * x.width
    shape = net.constant("joints.shape", (-1, classes, pixels), "int64")
    value = _scaled(layers, net.op("Reshape", "joints", [x.value, shape]), "joints.norm", pixels)
    value = _product(layers, value, "joints.features", (pixels, FEATURES))
    value = _gated(layers, value)
    sides = [
        _product(layers, value, axis, (FEATURES, SCALE * side))
        for axis, side in (("x", width), ("y", height))
    ]
    found = net.op("Concat", "places", sides, {"axis": -1})
    return net.finish(found, classes, SCALE * (height + width))


def _features(layers: Layers) -> list[Map]:
    """What each of the four stages results in."""
    x = layers.conv(layers.conv(layers.x, STEM, 3, stride=2), STEM, 3)
    x, found = layers.conv(x, 2 * STEM, 3), []
    for out, blocks in STAGES:
        last = out == STAGES[-1][0]
        x = layers.conv(x, out, 3, stride=2)
        if last:
            h = layers.conv(x, out // 2)
            pools = [layers.max_pool(h, size, 1, size // 2) for size in POOLS]
            x = layers.conv(layers.concat(h, *pools), out)
        x = _partial(layers, x, out, blocks, added=not last, weighted=True)
        found.append(x)
    return found


def _partial(
    layers: Layers, x: Map, out: int, blocks: int, *, added: bool, weighted: bool = False
) -> Map:
    """Blocks on half of the channels beside a 1 x 1 convolution; channels may be ``weighted``."""
    beside, h = layers.conv(x, out // 2), layers.conv(x, out // 2)
    for _ in range(blocks):
        inner = layers.depthwise(layers.conv(h, h.channels, 3), 5)
        inner = layers.conv(inner, h.channels)
        h = layers.add(inner, h) if added else inner
    h = layers.concat(h, beside)
    if weighted:
        gate = layers.conv(layers.squeeze(h), h.channels, norm=False, act=HARDSIGMOID)
        h = layers.multiply(h, gate)
    return layers.conv(h, out)


def _head(layers: Layers, x: Map, classes: int) -> Map:
    scores = layers.conv(layers.conv(x, HEAD, 3), HEAD, 3)
    boxes = layers.conv(layers.conv(x, HEAD, 3), HEAD, 3)
    scores = layers.conv(scores, classes, norm=False, act=SIGMOID)
    return layers.concat(layers.conv(boxes, 4, norm=False, act=NONE), scores)


def _gated(layers: Layers, x: ir.Value) -> ir.Value:
    """Attention between joints by one head, whose result gates itself (N, joints, FEATURES)."""
    net, wide = layers.net, 2 * FEATURES
    h = _scaled(layers, x, "gate.norm", FEATURES)
    h = _product(layers, h, "gate.parts", (FEATURES, 2 * wide + KEYS))
    h = net.op("Mul", "gate.silu", [h, net.op("Sigmoid", "gate.sigmoid", [h])])
    sizes = net.constant("gate.sizes", (wide, wide, KEYS), "int64")
    u, v, base = net.ops("Split", "gate.split", [h, sizes], {"axis": -1}, outputs=3)
    q, k = (_affine(layers, base, f"gate.{part}") for part in "qk")
    k = net.op("Transpose", "gate.keys", [k], {"perm": (0, 2, 1)})
    scale = net.constant("gate.scale.value", KEYS**-0.5, "float32")
    scores = net.op("Mul", "gate.scale", [net.op("MatMul", "gate.scores", [q, k]), scale])
    scores = net.op("Relu", "gate.relu", [scores])
    weights = net.op("Mul", "gate.squared", [scores, scores])
    mixed = net.op("Mul", "gate.gated", [u, net.op("MatMul", "gate.mix", [weights, v])])
    out = _product(layers, mixed, "gate.out", (wide, FEATURES))
    kept = net.op("Mul", "gate.kept", [x, net.filled("gate.shortcut", (FEATURES,), 1.0)])
    return net.op("Add", "gate.add", [kept, out])


def _affine(layers: Layers, x: ir.Value, name: str) -> ir.Value:
    net = layers.net
    scaled = net.op("Mul", f"{name}.scaled", [x, net.filled(f"{name}.gamma", (KEYS,), 1.0)])
    return net.op("Add", name, [scaled, net.filled(f"{name}.beta", (KEYS,))])


def _scaled(layers: Layers, x: ir.Value, name: str, features: int) -> ir.Value:
    """Each token by its root mean square, times one learned number."""
    net = layers.net
    axes = net.constant(f"{name}.axes", (-1,), "int64")
    norm = net.op("ReduceL2", f"{name}.length", [x, axes], {"keepdims": 1})
    scale = net.constant(f"{name}.scale", features**-0.5, "float32")
    small = net.constant(f"{name}.small", 1e-5, "float32")
    norm = net.op("Max", f"{name}.least", [net.op("Mul", f"{name}.mean", [norm, scale]), small])
    unit = net.op("Div", f"{name}.unit", [x, norm])
    return net.op("Mul", name, [unit, net.filled(f"{name}.weight", (1,), 1.0)])


def _product(layers: Layers, x: ir.Value, name: str, features: tuple[int, int]) -> ir.Value:
    weight = layers.net.normal(f"{name}.weight", features, 0.05)
    return layers.net.op("MatMul", name, [x, weight])
