"""EdgeNeXt: large depthwise kernels, and attention between channels in one block of each stage.

Source: Maaz et al., "EdgeNeXt: Efficiently amalgamated CNN-transformer architecture for mobile
vision applications", 2022, as in timm.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
import onnx_ir as ir

from coexec.zoo.attention import image, rows
from coexec.zoo.builder import linear, require
from coexec.zoo.layers import NONE, Layers, Map
from coexec.zoo.transformer import layer_norm, project

KERNELS = (3, 5, 7, 9)
PARTS = (2, 2, 3, 4)
"""Of the channels, in each stage's block with attention; all but the last one are convolved."""
PLACED, SINES = 1, 64
"""The stage whose pixels' places are added, and sines that stand for a place."""


@dataclass(frozen=True)
class Size:
    """Channels and blocks of each stage, and heads of attention."""

    channels: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]
    heads: int


SIZES = (
    Size((24, 48, 88, 168), (2, 2, 6, 2), 4),
    Size((32, 64, 100, 192), (3, 3, 9, 3), 4),
    Size((48, 96, 160, 304), (3, 3, 9, 3), 8),
    Size((80, 160, 288, 584), (3, 3, 9, 3), 8),
)
"""Extra extra small, extra small, small and base."""


def edgenext(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 256,
    number: int = 0,
    seed: int = 0,
) -> ir.Model:
    """The size of a ``number``, the smallest first: (N, 3, size, size) -> (N, classes).

    Raises:
        UsageError: no such network.
    """
    require(0 <= number < len(SIZES), f"EdgeNeXt has {len(SIZES)} sizes, not {number}")
    size = SIZES[number]
    layers = Layers("edgenext", batch, (3, image_size, image_size), seed, NONE)
    x = _normed(layers, layers.conv(layers.x, size.channels[0], 4, stride=4, pad=0, norm=False))
    for stage, (out, depth) in enumerate(zip(size.channels, size.depths, strict=True)):
        if stage:
            x = layers.conv(_normed(layers, x), out, 2, stride=2, pad=0, norm=False)
        for block in range(depth):
            if stage and block == depth - 1:
                x = _attending(layers, x, stage, size.heads)
            else:
                x = _convolved(layers, x, KERNELS[stage])
    x = _normed(layers, layers.squeeze(x))
    flat = layers.net.op("Flatten", "flatten", [x.value], {"axis": 1})
    return layers.net.finish(linear(layers.net, flat, "head", (x.channels, classes)), classes)


def _normed(layers: Layers, x: Map) -> Map:
    """Each pixel's channels by their mean and variance."""
    value = layer_norm(layers.net, rows(layers, x), layers.name("norm"), x.channels)
    return image(layers, value, x.channels, x.height, x.width)


def _convolved(layers: Layers, x: Map, kernel: int) -> Map:
    h = layers.depthwise(x, kernel, norm=False)
    value = _perceptron(layers, rows(layers, h), x.channels)
    return layers.add(x, image(layers, value, x.channels, x.height, x.width))


def _perceptron(layers: Layers, x: ir.Value, features: int) -> ir.Value:
    """Normalised, four times as wide and back, and scaled."""
    net, name = layers.net, layers.name("mlp")
    h = layer_norm(net, x, f"{name}.norm", features)
    h = net.op("Gelu", f"{name}.gelu", [project(net, h, f"{name}.fc1", (features, 4 * features))])
    h = project(net, h, f"{name}.fc2", (4 * features, features))
    return net.op("Mul", f"{name}.scaled", [h, net.filled(f"{name}.gamma", (features,), 0.1)])


def _attending(layers: Layers, x: Map, stage: int, heads: int) -> Map:
    """Parts convolved one onto the other, attention between channels, and a perceptron."""
    net, features = layers.net, x.channels
    value = rows(layers, _cascaded(layers, x, PARTS[stage]))
    if stage == PLACED:
        # Sines of places are no parameters; their values do not matter to anything here.
        sines = np.zeros((1, SINES, x.height, x.width))
        place = Map(net.constant("sines", sines, "float32"), SINES, x.height, x.width)
        place = layers.conv(place, features, norm=False)
        value = net.op("Add", "placed", [value, rows(layers, place)])
    name = layers.name("attention")
    h = layer_norm(net, value, f"{name}.norm", features)
    h = _across(layers, h, name, features, heads, x.height * x.width)
    h = net.op("Mul", f"{name}.scaled", [h, net.filled(f"{name}.gamma", (features,), 0.1)])
    value = net.op("Add", f"{name}.add", [value, h])
    value = _perceptron(layers, value, features)
    return layers.add(x, image(layers, value, features, x.height, x.width))


def _cascaded(layers: Layers, x: Map, parts: int) -> Map:
    width = ceil(x.channels / parts)
    sizes = (*(width,) * (parts - 1), x.channels - width * (parts - 1))
    given = layers.split(x, *sizes)
    found: list[Map] = []
    for part in given[:-1]:
        h = layers.add(found[-1], part) if found else part
        found.append(layers.depthwise(h, 3, norm=False))
    return layers.concat(*found, given[-1])


def _across(
    layers: Layers, x: ir.Value, name: str, features: int, heads: int, pixels: int
) -> ir.Value:
    """Channels mixed by how alike they are over all pixels, (N, pixels, features)."""
    net, each = layers.net, features // heads
    qkv = project(net, x, f"{name}.qkv", (features, 3 * features))
    parts = []
    for part, value in zip(
        "qkv",
        net.ops("Split", f"{name}.split", [qkv], {"axis": -1, "num_outputs": 3}, outputs=3),
        strict=True,
    ):
        shape = net.constant(f"{name}.{part}.shape", (-1, pixels, heads, each), "int64")
        h = net.op("Reshape", f"{name}.{part}.heads", [value, shape])
        h = net.op("Transpose", f"{name}.{part}", [h], {"perm": (0, 2, 3, 1)})
        parts.append(h if part == "v" else _unit(layers, h, f"{name}.{part}"))
    keys = net.op("Transpose", f"{name}.keys", [parts[1]], {"perm": (0, 1, 3, 2)})
    scores = net.op("MatMul", f"{name}.scores", [parts[0], keys])
    warm = net.filled(f"{name}.temperature", (heads, 1, 1), 1.0)
    scores = net.op("Mul", f"{name}.scale", [scores, warm])
    weights = net.op("Softmax", f"{name}.softmax", [scores], {"axis": -1})
    mixed = net.op("MatMul", f"{name}.mix", [weights, parts[2]])
    mixed = net.op("Transpose", f"{name}.mix.order", [mixed], {"perm": (0, 3, 1, 2)})
    flat = net.constant(f"{name}.flat", (-1, pixels, features), "int64")
    mixed = net.op("Reshape", f"{name}.mixed", [mixed, flat])
    return project(net, mixed, f"{name}.out", (features, features))


def _unit(layers: Layers, x: ir.Value, name: str) -> ir.Value:
    """Each channel by its length over all pixels."""
    net = layers.net
    axes = net.constant(f"{name}.axes", (-1,), "int64")
    length = net.op("ReduceL2", f"{name}.length", [x, axes], {"keepdims": 1})
    small = net.constant(f"{name}.small", 1e-6, "float32")
    length = net.op("Max", f"{name}.least", [length, small])
    return net.op("Div", f"{name}.unit", [x, length])
