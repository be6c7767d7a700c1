"""Transformers behind convolutions: LeViT-128S and CvT-13.

Sources: Graham et al., "LeViT: A vision transformer in ConvNet's clothing for faster inference",
2021, its normalisation folded into products, as for inference, and one of its two classifiers
counted as part of the other's mean; Wu et al., "CvT: Introducing convolutions to vision
transformers", 2021, the mean of all tokens in place of one more token for the class.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
import onnx_ir as ir

from coexec.zoo.attention import image, mix, rows
from coexec.zoo.builder import Net, linear
from coexec.zoo.layers import HARDSWISH, NONE, Layers, Map
from coexec.zoo.transformer import Width, layer_norm, project

KEYS = 16
"""Features of a key in LeViT."""
LEVIT = ((128, 4, 2), (256, 6, 3), (384, 8, 4))
"""Features, heads and blocks of each stage."""
CVT = ((64, 1, 1, 7, 4), (192, 3, 2, 3, 2), (384, 6, 10, 3, 2))
"""Features, heads, blocks, kernel and stride of the convolution in front of each stage."""


@dataclass(frozen=True)
class Heads:
    """So many heads with so many features of a value each; queries and keys have :data:`KEYS`."""

    count: int
    value: int


def levit_128s(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("levit_128s", batch, (3, image_size, image_size), seed, HARDSWISH)
    net, x = layers.net, layers.x
    for out in (16, 32, 64):
        x = layers.conv(x, out, 3, stride=2)
    x = layers.conv(x, LEVIT[0][0], 3, stride=2, act=NONE)
    value = rows(layers, x)
    for stage, (features, heads, depth) in enumerate(LEVIT):
        if features != x.channels:
            wide = Heads(x.channels // KEYS, 4 * KEYS)
            few = layers.max_pool(image(layers, value, x.channels, x.height, x.width), 1, 2)
            value = _attended(
                net, (rows(layers, few), value), (few, x), f"down.{stage}", wide, features
            )
            x = replace(few, channels=features)
            value = _perceptron(net, value, f"down.{stage}.mlp", features)
        for block in range(depth):
            name = f"stage.{stage}.{block}"
            h = _attended(net, (value, value), (x, x), name, Heads(heads, 2 * KEYS), features)
            value = net.op("Add", f"{name}.add", [value, h])
            value = _perceptron(net, value, f"{name}.mlp", features)
    mean = _mean(net, value)
    both = [linear(net, mean, name, (x.channels, classes)) for name in ("head", "distilled")]
    half = net.constant("mean.half", 0.5, "float32")
    return net.finish(net.op("Mul", "mean", [net.op("Add", "mean.sum", both), half]), classes)


def cvt_13(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("cvt_13", batch, (3, image_size, image_size), seed, NONE)
    net, x = layers.net, layers.x
    for stage, (features, heads, depth, kernel, stride) in enumerate(CVT):
        x = layers.conv(x, features, kernel, stride=stride, pad=kernel // 3, norm=False)
        value = layer_norm(net, rows(layers, x), f"stage.{stage}.patches", features)
        for block in range(depth):
            value = _convolved_block(layers, value, x, f"stage.{stage}.{block}", heads)
        x = image(layers, value, features, x.height, x.width)
    value = layer_norm(net, rows(layers, x), "norm", x.channels)
    return net.finish(linear(net, _mean(net, value), "head", (x.channels, classes)), classes)


def _attended(
    net: Net,
    tokens: tuple[ir.Value, ir.Value],
    sizes: tuple[Map, Map],
    name: str,
    heads: Heads,
    out: int,
) -> ir.Value:
    """Attention of the first tokens to the second, whose features are those of their maps."""
    count, channels = heads.count, sizes[1].channels
    pixels = [size.height * size.width for size in sizes]
    parts = []
    for part, value, many, each, order in (
        ("q", tokens[0], pixels[0], KEYS, (0, 2, 1, 3)),
        ("k", tokens[1], pixels[1], KEYS, (0, 2, 3, 1)),
        ("v", tokens[1], pixels[1], heads.value, (0, 2, 1, 3)),
    ):
        h = project(net, value, f"{name}.{part}", (channels, count * each))
        shape = net.constant(f"{name}.{part}.shape", (-1, many, count, each), "int64")
        h = net.op("Reshape", f"{name}.{part}.heads", [h, shape])
        parts.append(net.op("Transpose", f"{name}.{part}.order", [h], {"perm": order}))
    scale = net.constant(f"{name}.scale.value", 1 / sqrt(KEYS), "float32")
    scores = net.op("MatMul", f"{name}.scores", parts[:2])
    scores = net.op("Mul", f"{name}.scale", [scores, scale])
    # Picked from a few learned numbers by how far apart two pixels are: made before any image.
    place = net.constant(f"{name}.place", np.zeros((1, count, *pixels)), "float32")
    scores = net.op("Add", f"{name}.placed", [scores, place])
    weights = net.op("Softmax", f"{name}.softmax", [scores], {"axis": -1})
    mixed = net.op("MatMul", f"{name}.mix", [weights, parts[2]])
    mixed = net.op("Transpose", f"{name}.mix.order", [mixed], {"perm": (0, 2, 1, 3)})
    flat = net.constant(f"{name}.flat", (-1, pixels[0], count * heads.value), "int64")
    mixed = net.op("Reshape", f"{name}.mix.flat", [mixed, flat])
    mixed = net.op("HardSwish", f"{name}.act", [mixed])
    return project(net, mixed, f"{name}.out", (count * heads.value, out))


def _perceptron(net: Net, x: ir.Value, name: str, features: int) -> ir.Value:
    h = project(net, x, f"{name}.fc1", (features, 2 * features))
    h = net.op("HardSwish", f"{name}.act", [h])
    h = project(net, h, f"{name}.fc2", (2 * features, features))
    return net.op("Add", f"{name}.add", [x, h])


def _convolved_block(layers: Layers, x: ir.Value, size: Map, name: str, heads: int) -> ir.Value:
    """Queries, keys and values are convolved first, the latter two to a quarter of the pixels."""
    net, features = layers.net, size.channels
    h = layer_norm(net, x, f"{name}.norm1", features)
    whole = image(layers, h, features, size.height, size.width)
    parts, pixels = [], 0
    for part, stride in (("q", 1), ("k", 2), ("v", 2)):
        each = layers.depthwise(whole, 3, stride=stride)
        pixels = each.height * each.width
        value = rows(layers, each)
        parts.append(project(net, value, f"{name}.{part}", (features, features)))
    width = Width(size.height * size.width, features, heads)
    h = mix(net, (parts[0], parts[1], parts[2]), pixels, f"{name}.attention", width)
    x = net.op("Add", f"{name}.add1", [x, h])
    h = layer_norm(net, x, f"{name}.norm2", features)
    h = project(net, h, f"{name}.fc1", (features, 4 * features))
    h = project(net, net.op("Gelu", f"{name}.gelu", [h]), f"{name}.fc2", (4 * features, features))
    return net.op("Add", f"{name}.add2", [x, h])


def _mean(net: Net, x: ir.Value) -> ir.Value:
    axes = net.constant("pool.axes", (1,), "int64")
    return net.op("ReduceMean", "pool", [x, axes], {"keepdims": 0})
