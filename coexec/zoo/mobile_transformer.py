"""Transformers made for phones: SegFormer-B0, MobileViT, EfficientFormer.

Sources: Xie et al., "SegFormer: Simple and efficient design for semantic segmentation with
transformers", 2021; Mehta, Rastegari, "MobileViT: Light-weight, general-purpose, and
mobile-friendly vision transformer", 2022; Li et al., "EfficientFormer: Vision transformers at
MobileNet speed", 2022.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt

import onnx_ir as ir

from coexec.zoo.attention import Form, attend, encode, image, rows
from coexec.zoo.builder import Net, linear
from coexec.zoo.layers import GELU, NONE, RELU, SILU, Layers, Map
from coexec.zoo.transformer import Width, layer_norm, project


@dataclass(frozen=True)
class Stage:
    """SegFormer's: features, heads, how many times fewer keys by side; the convolution in front."""

    features: int
    heads: int
    fewer: int
    kernel: int
    stride: int


B0 = (Stage(32, 1, 8, 7, 4), Stage(64, 2, 4, 3, 2), Stage(160, 5, 2, 3, 2), Stage(256, 8, 1, 3, 2))
DECODED = 256
MOBILE_DEPTHS = (2, 4, 3)
"""MobileViT's transformer blocks of each of its last three stages."""


@dataclass(frozen=True)
class Mobile:
    """MobileViT's expansion, channels of its five stages, features inside the last three, head."""

    expansion: int
    channels: tuple[int, int, int, int, int]
    features: tuple[int, int, int]
    head: int


MOBILE_S = Mobile(4, (32, 64, 96, 128, 160), (144, 192, 240), 640)
MOBILE_XS = Mobile(4, (32, 48, 64, 80, 96), (96, 120, 144), 384)
MOBILE_XXS = Mobile(2, (16, 24, 48, 64, 80), (64, 80, 96), 320)


@dataclass(frozen=True)
class Former:
    """EfficientFormer's channels and pooling blocks of each stage, and blocks with attention."""

    stages: tuple[tuple[int, int], ...]
    attended: int


FORMER_L1 = Former(((48, 3), (96, 2), (224, 6), (448, 3)), 1)
FORMER_L3 = Former(((64, 4), (128, 4), (320, 12), (512, 2)), 4)
FORMER_L7 = Former(((96, 6), (192, 6), (384, 18), (768, 0)), 8)


def segformer_b0(
    batch: int | None = None, classes: int = 150, *, image_size: int = 512, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes, size / 4, size / 4)."""
    layers = Layers("segformer_b0", batch, (3, image_size, image_size), seed, RELU)
    net, x, found = layers.net, layers.x, []
    for number, stage in enumerate(B0):
        x = layers.conv(x, stage.features, stage.kernel, stride=stage.stride, norm=False, act=NONE)
        size, value = x, rows(layers, x)
        value = layer_norm(net, value, f"stage.{number}.patches", stage.features)
        for block in range(2):
            value = _segformer_block(layers, value, size, f"stage.{number}.{block}", stage)
        value = layer_norm(net, value, f"stage.{number}.norm", stage.features)
        x = image(layers, value, x.channels, x.height, x.width)
        found.append(x)
    sized = []
    for each in found:
        value = project(net, rows(layers, each), layers.name("decoded"), (each.channels, DECODED))
        decoded = image(layers, value, DECODED, each.height, each.width)
        sized.append(layers.resize_to(decoded, found[0]))
    x = layers.conv(layers.concat(*reversed(sized)), DECODED)
    return layers.finish(layers.conv(x, classes, norm=False, act=NONE))


def mobilevit_s(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 256, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    return _mobilevit("mobilevit_s", MOBILE_S, batch, classes, image_size, seed)


def mobilevit_xs(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 256, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    return _mobilevit("mobilevit_xs", MOBILE_XS, batch, classes, image_size, seed)


def mobilevit_xxs(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 256, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    return _mobilevit("mobilevit_xxs", MOBILE_XXS, batch, classes, image_size, seed)


def efficientformer_l1(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    return _efficientformer("efficientformer_l1", FORMER_L1, batch, classes, image_size, seed)


def efficientformer_l3(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    return _efficientformer("efficientformer_l3", FORMER_L3, batch, classes, image_size, seed)


def efficientformer_l7(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    return _efficientformer("efficientformer_l7", FORMER_L7, batch, classes, image_size, seed)


def _mobilevit(
    name: str, form: Mobile, batch: int | None, classes: int, image_size: int, seed: int
) -> ir.Model:
    layers = Layers(name, batch, (3, image_size, image_size), seed, SILU)
    x = layers.conv(layers.x, 16, 3, stride=2)
    first, second = form.channels[:2]
    for out, stride in ((first, 1), (second, 2), (second, 1), (second, 1)):
        x = _inverted(layers, x, out, stride, form.expansion)
    for out, features, depth in zip(form.channels[2:], form.features, MOBILE_DEPTHS, strict=True):
        x = _mixed(layers, _inverted(layers, x, out, 2, form.expansion), features, depth)
    return layers.logits(layers.conv(x, form.head), classes, drop=0.1)


def _efficientformer(
    name: str, form: Former, batch: int | None, classes: int, image_size: int, seed: int
) -> ir.Model:
    """The mean of both of its classifiers."""
    layers = Layers(name, batch, (3, image_size, image_size), seed, RELU)
    net, first = layers.net, form.stages[0][0]
    x = layers.conv(layers.x, first // 2, 3, stride=2, bias=True)
    x = layers.conv(x, first, 3, stride=2, bias=True)
    for channels, blocks in form.stages:
        if channels != x.channels:
            x = layers.conv(x, channels, 3, stride=2, bias=True, act=NONE)
        for _ in range(blocks):
            x = _pooling_block(layers, x)
    features, tokens = x.channels, x.height * x.width
    value = rows(layers, x)
    for _ in range(form.attended):
        value = _wide_block(net, value, Width(tokens, features, 8), layers.name("attention"))
    value = layer_norm(net, value, "norm", features)
    axes = net.constant("pool.axes", (1,), "int64")
    mean = net.op("ReduceMean", "pool", [value, axes], {"keepdims": 0})
    both = [linear(net, mean, name, (features, classes)) for name in ("head", "distilled")]
    half = net.constant("mean.half", 0.5, "float32")
    total = net.op("Add", "mean.sum", both)
    return net.finish(net.op("Mul", "mean", [total, half]), classes)


def _segformer_block(layers: Layers, x: ir.Value, size: Map, name: str, stage: Stage) -> ir.Value:
    """Attention to fewer keys, then a perceptron with a depthwise convolution inside."""
    net, features, fewer = layers.net, stage.features, stage.fewer
    h = memory = layer_norm(net, x, f"{name}.norm1", features)
    tokens = size.height * size.width
    if fewer > 1:
        few = image(layers, h, features, size.height, size.width)
        few = layers.conv(few, features, fewer, stride=fewer, pad=0, norm=False, act=NONE)
        memory = layer_norm(net, rows(layers, few), f"{name}.few", features)
    width = Width(tokens, features, stage.heads)
    h = attend(net, h, memory, tokens // fewer**2, f"{name}.attention", width)
    x = net.op("Add", f"{name}.add1", [x, h])
    h = layer_norm(net, x, f"{name}.norm2", features)
    h = project(net, h, f"{name}.fc1", (features, 4 * features))
    wide = image(layers, h, 4 * features, size.height, size.width)
    wide = layers.depthwise(wide, 3, act=GELU, norm=False)
    h = project(net, rows(layers, wide), f"{name}.fc2", (4 * features, features))
    return net.op("Add", f"{name}.add2", [x, h])


def _inverted(layers: Layers, x: Map, out: int, stride: int, expansion: int) -> Map:
    h = layers.depthwise(layers.conv(x, expansion * x.channels), 3, stride=stride)
    h = layers.conv(h, out, act=NONE)
    return layers.add(h, x) if stride == 1 and out == x.channels else h


def _mixed(layers: Layers, x: Map, features: int, depth: int) -> Map:
    """MobileViT's block: attention between pixels at the same place of their 2 x 2."""
    net, name = layers.net, layers.name("mixed")
    h = layers.conv(layers.conv(x, x.channels, 3), features, norm=False, bias=False, act=NONE)
    high, wide = h.height // 2, h.width // 2
    apart = net.constant(f"{name}.apart", (-1, features, high, 2, wide, 2), "int64")
    value = net.op("Reshape", f"{name}.places", [h.value, apart])
    value = net.op("Transpose", f"{name}.places.last", [value], {"perm": (0, 3, 5, 2, 4, 1)})
    flat = net.constant(f"{name}.flat", (-1, high * wide, features), "int64")
    value = net.op("Reshape", f"{name}.tokens", [value, flat])
    form = Form(Width(high * wide, features, 4), 2 * features, act="Swish")
    for block in range(depth):
        value = encode(net, value, f"{name}.{block}", form)
    value = layer_norm(net, value, f"{name}.norm", features)
    places = net.constant(f"{name}.back", (-1, 2, 2, high, wide, features), "int64")
    value = net.op("Reshape", f"{name}.back.places", [value, places])
    value = net.op("Transpose", f"{name}.back.first", [value], {"perm": (0, 5, 3, 1, 4, 2)})
    whole = net.constant(f"{name}.image", (-1, features, h.height, h.width), "int64")
    h = replace(h, value=net.op("Reshape", f"{name}.pixels", [value, whole]))
    return layers.conv(layers.concat(x, layers.conv(h, x.channels)), x.channels, 3)


def _pooling_block(layers: Layers, x: Map) -> Map:
    """The mean of neighbours less the pixel, then a perceptron; both scaled and added."""
    net = layers.net
    mean = layers.average_pool(x, 3, 1, 1)
    value = net.op("Sub", layers.name("less"), [mean.value, x.value])
    x = layers.add(x, _scaled(layers, replace(x, value=value)))
    h = layers.conv(
        layers.conv(x, 4 * x.channels, bias=True, act=GELU), x.channels, bias=True, act=NONE
    )
    return layers.add(x, _scaled(layers, h))


def _scaled(layers: Layers, x: Map) -> Map:
    name = layers.name("scale")
    factor = layers.net.filled(f"{name}.gamma", (x.channels, 1, 1), 0.1)
    return replace(x, value=layers.net.op("Mul", name, [x.value, factor]))


def _wide_block(net: Net, x: ir.Value, width: Width, name: str) -> ir.Value:
    """Attention with 32 features for keys and 128 for values of each head, then a perceptron."""
    features, heads, keys, values = width.features, width.heads, 32, 128
    h = layer_norm(net, x, f"{name}.norm1", features)
    parts = []
    for part, each, order in (
        ("q", keys, (0, 2, 1, 3)),
        ("k", keys, (0, 2, 3, 1)),
        ("v", values, (0, 2, 1, 3)),
    ):
        value = project(net, h, f"{name}.{part}", (features, heads * each))
        shape = net.constant(f"{name}.{part}.shape", (-1, width.tokens, heads, each), "int64")
        value = net.op("Reshape", f"{name}.{part}.heads", [value, shape])
        parts.append(net.op("Transpose", f"{name}.{part}.order", [value], {"perm": order}))
    scale = net.constant(f"{name}.scale.value", 1 / sqrt(keys), "float32")
    scores = net.op("MatMul", f"{name}.scores", parts[:2])
    scores = net.op("Mul", f"{name}.scale", [scores, scale])
    place = net.normal(f"{name}.position", (1, heads, width.tokens, width.tokens), 0.02)
    scores = net.op("Add", f"{name}.placed", [scores, place])
    weights = net.op("Softmax", f"{name}.softmax", [scores], {"axis": -1})
    mixed = net.op("MatMul", f"{name}.mix", [weights, parts[2]])
    mixed = net.op("Transpose", f"{name}.mix.order", [mixed], {"perm": (0, 2, 1, 3)})
    flat = net.constant(f"{name}.flat", (-1, width.tokens, heads * values), "int64")
    mixed = net.op("Reshape", f"{name}.mix.flat", [mixed, flat])
    x = net.op("Add", f"{name}.add1", [x, project(net, mixed, f"{name}.out", (1024, features))])
    h = layer_norm(net, x, f"{name}.norm2", features)
    h = net.op("Gelu", f"{name}.gelu", [project(net, h, f"{name}.fc1", (features, 4 * features))])
    h = project(net, h, f"{name}.fc2", (4 * features, features))
    return net.op("Add", f"{name}.add2", [x, h])
