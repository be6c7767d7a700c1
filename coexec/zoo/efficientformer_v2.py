"""EfficientFormerV2-S0 to L: convolutions, and attention in the last blocks of two stages.

Source: Li et al., "Rethinking vision transformers for MobileNet size and speed", 2023, as in timm.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from coexec.core.types import Array
from coexec.zoo.builder import linear, require
from coexec.zoo.layers import GELU, NONE, Layers, Map

HEADS, TIMES = 8, 4
"""Of attention; how many features a value has for each of a key."""
KEYS, DOWN_KEYS = 32, 16
"""Features of a key, and of one where the image is halved."""
STRIDED, HALVED = 2, 3
"""The stage whose attention is between every second pixel, and the one that attention leads to."""


@dataclass(frozen=True)
class Size:
    """Channels of each stage; expansions of each block, by stage; last blocks with attention."""

    channels: tuple[int, int, int, int]
    expansions: tuple[tuple[int, ...], ...]
    attended: int


SIZES = (
    Size((32, 48, 96, 176), ((4,) * 2, (4,) * 2, (4, 3, 3, 3, 4, 4), (4, 3, 3, 4)), 2),
    Size(
        (32, 48, 120, 224),
        ((4,) * 3, (4,) * 3, (4, 4, 3, 3, 3, 3, 4, 4, 4), (4, 4, 3, 3, 4, 4)),
        2,
    ),
    Size(
        (32, 64, 144, 288),
        (
            (4,) * 4,
            (4,) * 4,
            (4, 4, *(3,) * 6, 4, 4, 4, 4),
            (4, 4, 3, 3, 3, 3, 4, 4),
        ),
        4,
    ),
    Size(
        (40, 80, 192, 384),
        (
            (4,) * 5,
            (4,) * 5,
            (4, 4, 4, 4, *(3,) * 7, 4, 4, 4, 4),
            (4, 4, 4, 3, 3, 3, 3, 4, 4, 4),
        ),
        6,
    ),
)


def efficientformer_v2(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    number: int = 0,
    seed: int = 0,
) -> ir.Model:
    """S0, S1, S2 or L by ``number``: (N, 3, size, size) -> (N, classes), two classifiers' mean.

    Raises:
        UsageError: no such network, or the image cannot be halved five times.
    """
    require(0 <= number < len(SIZES), f"EfficientFormerV2 has {len(SIZES)} sizes, not {number}")
    require(image_size % 32 == 0, f"{image_size} pixels cannot be halved five times")
    size = SIZES[number]
    layers = Layers("efficientformer_v2", batch, (3, image_size, image_size), seed, GELU)
    x = layers.conv(layers.x, size.channels[0] // 2, 3, stride=2, bias=True)
    x = layers.conv(x, size.channels[0], 3, stride=2, bias=True)
    for stage, (out, expansions) in enumerate(zip(size.channels, size.expansions, strict=True)):
        if stage:
            down = layers.conv(x, out, 3, stride=2, bias=True, act=NONE)
            x = layers.add(_halved(layers, x, out), down) if stage == HALVED else down
        for block, expansion in enumerate(expansions):
            if stage >= STRIDED and block >= len(expansions) - size.attended:
                h = _attended(layers, x, strided=stage == STRIDED)
                x = layers.add(x, _scaled(layers, h))
            x = layers.add(x, _scaled(layers, _perceptron(layers, x, expansion)))
    net, x = layers.net, layers.norm(x)
    flat = net.op("Flatten", "flatten", [layers.squeeze(x).value], {"axis": 1})
    both = [linear(net, flat, name, (x.channels, classes)) for name in ("head", "distilled")]
    half = net.constant("mean.half", 0.5, "float32")
    return net.finish(net.op("Mul", "mean", [net.op("Add", "mean.sum", both), half]), classes)


def _plain(layers: Layers, x: Map, out: int) -> Map:
    return layers.conv(x, out, bias=True, act=NONE)


def _perceptron(layers: Layers, x: Map, expansion: int) -> Map:
    h = layers.conv(x, expansion * x.channels, bias=True)
    return _plain(layers, layers.depthwise(h, 3, bias=True), x.channels)


def _attended(layers: Layers, x: Map, *, strided: bool) -> Map:
    """Attention whose scores are mixed between heads before and behind the softmax."""
    few = layers.depthwise(x, 3, stride=2, bias=True, act=NONE) if strided else x
    q, k = (_plain(layers, few, KEYS * HEADS) for _ in range(2))
    h = _mixed(layers, (q, k, _plain(layers, few, TIMES * KEYS * HEADS)), KEYS, mixing=True)
    h = layers.resize(h, 2, linear=True) if strided else h
    return _plain(layers, layers.activate(h, GELU), x.channels)


def _halved(layers: Layers, x: Map, out: int) -> Map:
    """Attention from every second pixel to all."""
    local = layers.depthwise(x, 3, stride=2, norm=False, act=NONE)
    few = layers.max_pool(x, 1, 2)
    asked = layers.add(local, few)
    q, k = _plain(layers, asked, DOWN_KEYS * HEADS), _plain(layers, x, DOWN_KEYS * HEADS)
    v = _plain(layers, x, TIMES * DOWN_KEYS * HEADS)
    h = _mixed(layers, (q, k, v), DOWN_KEYS, mixing=False)
    return _plain(layers, layers.activate(h, GELU), out)


def _mixed(layers: Layers, parts: tuple[Map, Map, Map], keys: int, *, mixing: bool) -> Map:
    """Values by how queries and keys agree, beside a convolution of the values."""
    net, name = layers.net, layers.name("attention")
    q, k, v = parts
    asked, known = q.height * q.width, k.height * k.width
    heads = []
    for part, x, each in (("q", q, keys), ("k", k, keys), ("v", v, TIMES * keys)):
        shape = net.constant(f"{name}.{part}.shape", (-1, HEADS, each, x.height * x.width), "int64")
        value = net.op("Reshape", f"{name}.{part}.heads", [x.value, shape])
        if part != "k":
            value = net.op("Transpose", f"{name}.{part}", [value], {"perm": (0, 1, 3, 2)})
        heads.append(value)
    scale = net.constant(f"{name}.scale.value", keys**-0.5, "float32")
    scores = net.op("Mul", f"{name}.scale", [net.op("MatMul", f"{name}.scores", heads[:2]), scale])
    table = net.normal(f"{name}.position", (HEADS, known), 0.02)
    index = net.constant(f"{name}.distances", _distances(q, k), "int64")
    place = net.op("Gather", f"{name}.places", [table, index], {"axis": 1})
    weights = Map(net.op("Add", f"{name}.placed", [scores, place]), HEADS, asked, known)
    if mixing:
        weights = layers.conv(weights, HEADS, norm=False, act=NONE)
    soft = net.op("Softmax", f"{name}.softmax", [weights.value], {"axis": -1})
    weights = replace(weights, value=soft)
    if mixing:
        weights = layers.conv(weights, HEADS, norm=False, act=NONE)
    mixed = net.op("MatMul", f"{name}.mix", [weights.value, heads[2]])
    mixed = net.op("Transpose", f"{name}.mix.order", [mixed], {"perm": (0, 1, 3, 2)})
    shape = net.constant(f"{name}.image", (-1, v.channels, q.height, q.width), "int64")
    found = Map(net.op("Reshape", f"{name}.pixels", [mixed, shape]), v.channels, q.height, q.width)
    stride = v.height // q.height
    return layers.add(found, layers.depthwise(v, 3, stride=stride, bias=True, act=NONE))


def _distances(q: Map, k: Map) -> Array:
    """Where the bias of each pair of places stands in the table: (asked, known)."""
    step = k.height // q.height
    rows, columns = (each.ravel() for each in np.indices((k.height, k.width)))
    from_rows, from_columns = (each.ravel() * step for each in np.indices((q.height, q.width)))
    down = np.abs(from_rows[:, None] - rows[None])
    return np.asarray(down * k.width + np.abs(from_columns[:, None] - columns[None]))


def _scaled(layers: Layers, x: Map) -> Map:
    name = layers.name("scale")
    factor = layers.net.filled(f"{name}.gamma", (x.channels, 1, 1), 0.1)
    return replace(x, value=layers.net.op("Mul", name, [x.value, factor]))
