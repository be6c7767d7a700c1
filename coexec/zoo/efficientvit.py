"""EfficientViT: attention whose work grows with the pixels, not with their square.

Source: Cai et al., "EfficientViT: Multi-scale linear attention for high-resolution dense
prediction", 2023, sizes b2 and l2 as in the authors' code: keys meet values first, over all pixels
and over their neighbourhoods of 5 x 5, and queries meet what came of that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from coexec.zoo.builder import linear
from coexec.zoo.layers import GELU, HARDSWISH, NONE, Layers, Map
from coexec.zoo.transformer import layer_norm

EACH, SEGMENTED = 32, 256
"""Features of a head, and channels where stages are joined for segmentation."""


@dataclass(frozen=True)
class Sizes:
    """Channels and blocks of the stem and of each stage, and features of the classifier.

    ``large`` networks have full convolutions where the others have separable ones, in the stem and
    the first two stages; attention is in the last stage only, not in the last two.
    """

    widths: tuple[int, int, int, int, int]
    depths: tuple[int, int, int, int, int]
    head: tuple[int, int]
    large: bool = False


B2 = Sizes((24, 48, 96, 192, 384), (1, 3, 4, 4, 6), (2304, 2560))
L2 = Sizes((32, 64, 128, 256, 512), (1, 2, 2, 8, 8), (3072, 3200), large=True)


def efficientvit_b2(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("efficientvit_b2", batch, (3, image_size, image_size), seed, HARDSWISH)
    return _classified(layers, _features(layers, B2)[-1], B2, classes)


def efficientvit_l2(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("efficientvit_l2", batch, (3, image_size, image_size), seed, GELU)
    return _classified(layers, _features(layers, L2)[-1], L2, classes)


def efficientvit_l2_seg(
    batch: int | None = None,
    classes: int = 19,
    *,
    height: int = 1024,
    width: int = 2048,
    seed: int = 0,
) -> ir.Model:
    """Street scenes (N, 3, height, width) -> (N, classes, height / 8, width / 8)."""
    layers = Layers("efficientvit_l2_seg", batch, (3, height, width), seed, GELU)
    _, *found = _features(layers, L2)
    total: Map | None = None
    for x in reversed(found):
        h = layers.conv(x, SEGMENTED, act=NONE)
        h = layers.resize_to(h, found[0])
        total = h if total is None else layers.add(total, h)
    assert total is not None
    for _ in range(5):
        total = layers.add(_fused(layers, total, SEGMENTED, 1), total)
    return layers.finish(layers.conv(total, classes, norm=False, act=NONE))


def _features(layers: Layers, sizes: Sizes) -> list[Map]:
    """What each of the four stages results in."""
    x = layers.conv(layers.x, sizes.widths[0], 3, stride=2)
    for _ in range(sizes.depths[0]):
        x = layers.add(_plain(layers, x, full=sizes.large), x)
    found = []
    for stage in range(1, 5):
        x = (_large_stage if sizes.large else _stage)(layers, x, sizes, stage)
        found.append(x)
    return found


def _stage(layers: Layers, x: Map, sizes: Sizes, stage: int) -> Map:
    out, depth, attentive = sizes.widths[stage], sizes.depths[stage], stage > 2
    x = _inverted(layers, x, out, 4, stride=2, bare=attentive)
    if attentive:
        return _attentive(layers, x, depth, 4)
    for _ in range(depth - 1):
        x = layers.add(_inverted(layers, x, out, 4), x)
    return x


def _large_stage(layers: Layers, x: Map, sizes: Sizes, stage: int) -> Map:
    out, depth = sizes.widths[stage], sizes.depths[stage]
    if stage == 4:
        return _attentive(layers, _inverted(layers, x, out, 24, stride=2, bare=True), depth, 6)
    if stage == 3:
        x = _inverted(layers, x, out, 16, stride=2, bare=True)
        for _ in range(depth):
            x = layers.add(_inverted(layers, x, out, 4, bare=True), x)
        return x
    x = _fused(layers, x, out, 16, stride=2)
    for _ in range(depth):
        x = layers.add(_fused(layers, x, out, 4), x)
    return x


def _plain(layers: Layers, x: Map, *, full: bool) -> Map:
    """Two full convolutions, or a depthwise one and a 1 x 1 one."""
    if full:
        return layers.conv(layers.conv(x, x.channels, 3), x.channels, 3, act=NONE)
    return layers.conv(layers.depthwise(x, 3), x.channels, act=NONE)


def _inverted(
    layers: Layers, x: Map, out: int, expansion: int, *, stride: int = 1, bare: bool = False
) -> Map:
    """An inverted residual; ``bare`` ones are normalised only at their end."""
    h = layers.conv(x, expansion * x.channels, norm=not bare)
    h = layers.depthwise(h, 3, stride=stride, norm=not bare)
    return layers.conv(h, out, act=NONE)


def _fused(layers: Layers, x: Map, out: int, expansion: int, *, stride: int = 1) -> Map:
    return layers.conv(layers.conv(x, expansion * x.channels, 3, stride=stride), out, act=NONE)


def _attentive(layers: Layers, x: Map, depth: int, expansion: int) -> Map:
    for _ in range(depth):
        x = layers.add(_attended(layers, x), x)
        x = layers.add(_inverted(layers, x, x.channels, expansion, bare=True), x)
    return x


def _attended(layers: Layers, x: Map) -> Map:
    """Linear attention at two scales, and the product behind that."""
    net, name, pixels = layers.net, layers.name("attention"), x.height * x.width
    wide, heads = 3 * x.channels, x.channels // EACH
    one = layers.conv(x, wide, norm=False, bias=False, act=NONE)
    near = layers.conv(one, wide, 5, groups=wide, norm=False, bias=False, act=NONE)
    near = layers.conv(near, wide, groups=3 * heads, norm=False, bias=False, act=NONE)
    both = layers.concat(one, near)
    shape = net.constant(f"{name}.shape", (-1, 2 * heads, 3 * EACH, pixels), "int64")
    value = net.op("Reshape", f"{name}.heads", [both.value, shape])
    value = net.op("Transpose", f"{name}.tokens", [value], {"perm": (0, 1, 3, 2)})
    sizes = net.constant(f"{name}.sizes", (EACH,) * 3, "int64")
    q, k, v = net.ops("Split", f"{name}.split", [value, sizes], {"axis": -1}, outputs=3)
    q, k = (net.op("Relu", f"{name}.{part}", [each]) for part, each in (("q", q), ("k", k)))
    # A column of ones next to the values sums up the weights that the result is divided by.
    pads = net.constant(f"{name}.ones", (0, 0, 0, 0, 0, 0, 0, 1), "int64")
    v = net.op("Pad", f"{name}.v", [v, pads, net.constant(f"{name}.one", 1.0, "float32")])
    k = net.op("Transpose", f"{name}.keys", [k], {"perm": (0, 1, 3, 2)})
    mixed = net.op("MatMul", f"{name}.mix", [q, net.op("MatMul", f"{name}.met", [k, v])])
    ends = net.constant(f"{name}.ends", (EACH, 1), "int64")
    top, weight = net.ops("Split", f"{name}.parts", [mixed, ends], {"axis": -1}, outputs=2)
    small = net.constant(f"{name}.small", 1e-5, "float32")
    value = net.op("Div", f"{name}.mean", [top, net.op("Add", f"{name}.sum", [weight, small])])
    value = net.op("Transpose", f"{name}.last", [value], {"perm": (0, 1, 3, 2)})
    whole = net.constant(f"{name}.image", (-1, 2 * x.channels, x.height, x.width), "int64")
    value = net.op("Reshape", f"{name}.pixels", [value, whole])
    return layers.conv(replace(x, value=value, channels=2 * x.channels), x.channels, act=NONE)


def _classified(layers: Layers, x: Map, sizes: Sizes, classes: int) -> ir.Model:
    net, (wide, features) = layers.net, sizes.head
    x = layers.squeeze(layers.conv(x, wide))
    flat = net.op("Flatten", "flatten", [x.value], {"axis": 1})
    weight = net.normal("head.weight", (wide, features), 0.02)
    h = layer_norm(net, net.op("MatMul", "head", [flat, weight]), "head.norm", features)
    h = layers.activate(Map(h, features, 1, 1), layers.act).value
    return net.finish(linear(net, h, "fc", (features, classes)), classes)
