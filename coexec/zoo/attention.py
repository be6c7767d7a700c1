"""Blocks of transformers in the forms that published networks have.

Source: Vaswani et al., "Attention is all you need", 2017, with normalisation behind each half as
there or in front of it as in GPT-2; biases by position are those of Raffel et al. (T5), 2020, and
layer scales those of Touvron et al., "Going deeper with image transformers", 2021. Queries, keys
and values have a product each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import numpy as np
import onnx_ir as ir

from coexec.zoo.builder import Net, require
from coexec.zoo.layers import Layers, Map
from coexec.zoo.transformer import MASKED, Width, layer_norm, project

Half = Callable[[ir.Value], ir.Value]


@dataclass(frozen=True)
class Form:
    """What blocks of transformers differ in.

    ``hidden`` features of the perceptron, its activation ``act`` (an ONNX operator), normalisation
    in front of each half (``before``) or behind it, a bias of scores for each pair of positions
    (``biased``), a learned scale of each half (``scaled``), and tokens that see only themselves and
    those before them (``causal``).
    """

    width: Width
    hidden: int
    act: str = "Gelu"
    before: bool = True
    biased: bool = False
    scaled: bool = False
    causal: bool = False


def encode(net: Net, x: ir.Value, name: str, form: Form) -> ir.Value:
    """A block of an encoder, (N, tokens, features) -> the same."""
    x = _half(net, x, f"{name}.self", form, lambda h: _self(net, h, f"{name}.self", form))
    return _half(net, x, f"{name}.mlp", form, lambda h: perceptron(net, h, f"{name}.mlp", form))


def attend(
    net: Net,
    x: ir.Value,
    memory: ir.Value,
    tokens: int,
    name: str,
    width: Width,
    bias: ir.Value | None = None,
    *,
    values: ir.Value | None = None,
) -> ir.Value:
    """Attention of (N, width.tokens, features) to (N, ``tokens``, features) of ``memory``.

    ``values`` are what is mixed, if that is not ``memory`` too.
    """
    q, k, v = (
        project(net, value, f"{name}.{part}", (width.features, width.features))
        for part, value in (("q", x), ("k", memory), ("v", values or memory))
    )
    return mix(net, (q, k, v), tokens, name, width, bias)


def attend_unbiased(
    net: Net, x: ir.Value, memory: tuple[ir.Value, int, int], name: str, width: Width
) -> ir.Value:
    """Attention to ``memory`` of so many tokens and features, by products without biases."""
    value, tokens, features = memory
    parts = []
    for part, source, count in (
        ("q", x, width.features),
        ("k", value, features),
        ("v", value, features),
    ):
        weight = net.normal(f"{name}.{part}.weight", (count, width.features), count**-0.5)
        parts.append(net.op("MatMul", f"{name}.{part}", [source, weight]))
    return mix(net, (parts[0], parts[1], parts[2]), tokens, name, width)


def mix(
    net: Net,
    projected: tuple[ir.Value, ir.Value, ir.Value],
    tokens: int,
    name: str,
    width: Width,
    bias: ir.Value | None = None,
) -> ir.Value:
    """Values mixed by how queries and keys agree, and the product behind that."""
    each = width.features // width.heads
    counts, orders = (width.tokens, tokens, tokens), ((0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3))
    heads = []
    for value, count, order, part in zip(projected, counts, orders, "qkv", strict=True):
        shape = net.constant(f"{name}.{part}.shape", (-1, count, width.heads, each), "int64")
        parts = net.op("Reshape", f"{name}.{part}.heads", [value, shape])
        heads.append(net.op("Transpose", f"{name}.{part}.transpose", [parts], {"perm": order}))
    scale = net.constant(f"{name}.scale.value", 1 / sqrt(each), "float32")
    scores = net.op("MatMul", f"{name}.scores", heads[:2])
    scores = net.op("Mul", f"{name}.scale", [scores, scale])
    if bias is not None:
        scores = net.op("Add", f"{name}.bias", [scores, bias])
    weights = net.op("Softmax", f"{name}.softmax", [scores], {"axis": -1})
    mixed = net.op("MatMul", f"{name}.mix", [weights, heads[2]])
    mixed = net.op("Transpose", f"{name}.mix.transpose", [mixed], {"perm": (0, 2, 1, 3)})
    shape = net.constant(f"{name}.flat.shape", (-1, width.tokens, width.features), "int64")
    flat = net.op("Reshape", f"{name}.flat", [mixed, shape])
    return project(net, flat, f"{name}.out", (width.features, width.features))


def perceptron(net: Net, x: ir.Value, name: str, form: Form) -> ir.Value:
    """Two products with an activation between them."""
    features = form.width.features
    h = project(net, x, f"{name}.fc1", (features, form.hidden))
    h = act(net, h, f"{name}.act", form.act)
    return project(net, h, f"{name}.fc2", (form.hidden, features))


def act(net: Net, x: ir.Value, name: str, op_type: str) -> ir.Value:
    """An activation; ``Swish`` is x times its sigmoid, ``QuickGelu`` nearly Gelu by a sigmoid."""
    if op_type in {"Swish", "QuickGelu"}:
        inner = x
        if op_type == "QuickGelu":
            factor = net.constant(f"{name}.factor", 1.702, "float32")
            inner = net.op("Mul", f"{name}.inner", [x, factor])
        return net.op("Mul", name, [x, net.op("Sigmoid", f"{name}.sigmoid", [inner])])
    return net.op(op_type, name, [x])


def _self(net: Net, x: ir.Value, name: str, form: Form) -> ir.Value:
    width = form.width
    bias = None
    if form.biased:
        bias = net.normal(f"{name}.position", (1, width.heads, width.tokens, width.tokens), 0.02)
    elif form.causal:
        later = np.triu(np.full((width.tokens, width.tokens), MASKED), 1)
        bias = net.constant(f"{name}.later", later, "float32")
    return attend(net, x, x, width.tokens, name, width, bias)


def _half(net: Net, x: ir.Value, name: str, form: Form, inner: Half) -> ir.Value:
    features = form.width.features
    h = inner(layer_norm(net, x, f"{name}.norm", features) if form.before else x)
    if form.scaled:
        h = net.op("Mul", f"{name}.scaled", [h, net.filled(f"{name}.gamma", (features,), 0.1)])
    found = net.op("Add", f"{name}.add", [x, h])
    return found if form.before else layer_norm(net, found, f"{name}.norm", features)


def embed_patches(layers: Layers, patch: int, features: int, more: int = 1) -> tuple[ir.Value, int]:
    """Patches of the input as tokens behind ``more`` learned ones: (N, tokens, features), tokens.

    The learned tokens are part of what is added for each position.
    """
    require(
        layers.x.height % patch == 0 and layers.x.width % patch == 0,
        f"{layers.x.height} x {layers.x.width} pixels are no whole number of patches",
    )
    x = layers.conv(layers.x, features, patch, stride=patch, pad=0, norm=False, act="")
    tokens, net = x.height * x.width + more, layers.net
    value = rows(layers, x)
    if more:
        pads = net.constant("tokens.pads", (0, more, 0, 0, 0, 0), "int64")
        value = net.op("Pad", "tokens.learned", [value, pads])
    position = net.normal("position", (1, tokens, features), 0.02)
    return net.op("Add", "tokens.position", [value, position]), tokens


def rows(layers: Layers, x: Map) -> ir.Value:
    """(N, pixels, channels)."""
    name, net = layers.name("rows"), layers.net
    shape = net.constant(f"{name}.shape", (-1, x.channels, x.height * x.width), "int64")
    value = net.op("Reshape", f"{name}.flat", [x.value, shape])
    return net.op("Transpose", name, [value], {"perm": (0, 2, 1)})


def image(layers: Layers, x: ir.Value, channels: int, height: int, width: int) -> Map:
    """(N, pixels, channels) as an image again."""
    name, net = layers.name("image"), layers.net
    value = net.op("Transpose", name, [x], {"perm": (0, 2, 1)})
    shape = net.constant(f"{name}.shape", (-1, channels, height, width), "int64")
    return Map(net.op("Reshape", f"{name}.pixels", [value, shape]), channels, height, width)


def pick(net: Net, x: ir.Value, name: str, place: int = 0) -> ir.Value:
    """One token: (N, tokens, features) -> (N, features)."""
    index = net.constant(f"{name}.index", place, "int64")
    return net.op("Gather", name, [x, index], {"axis": 1})


def drop_first(net: Net, x: ir.Value, name: str, tokens: int, dropped: int) -> ir.Value:
    """Tokens without the first ones."""
    bounds = [
        net.constant(f"{name}.{end}", (value,), "int64")
        for end, value in (("start", dropped), ("end", tokens), ("axis", 1))
    ]
    return net.op("Slice", name, [x, *bounds])
