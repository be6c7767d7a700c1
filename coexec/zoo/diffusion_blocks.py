"""Blocks of Stable Diffusion; sources stand in :mod:`coexec.zoo.diffusion`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import onnx_ir as ir

from coexec.zoo.attention import attend, attend_unbiased, image, rows
from coexec.zoo.builder import Net
from coexec.zoo.layers import NONE, SILU, Layers, Map
from coexec.zoo.transformer import Width, layer_norm, project

GROUPS = 32
"""Groups of channels that are normalised together."""


@dataclass(frozen=True)
class Context:
    """What steps depend on: features of the time (N, ``wide``), and words (N, tokens, written).

    ``heads`` of attention, or as many as have ``each`` features, where that is not 0.
    """

    time: ir.Value
    wide: int
    words: ir.Value
    tokens: int
    written: int
    heads: int
    each: int

    def heads_of(self, features: int) -> int:
        """Heads for so many channels."""
        return features // self.each if self.each else self.heads


def group_norm(layers: Layers, x: Map) -> Map:
    """Groups of channels by their mean and variance, then each channel's own scale and bias."""
    net, name = layers.net, layers.name("groups")
    shape = net.constant(f"{name}.shape", (0, GROUPS, -1), "int64")
    value = net.op("Reshape", f"{name}.flat", [x.value, shape])
    ones = net.constant(f"{name}.ones", (1.0,) * GROUPS, "float32")
    zeros = net.constant(f"{name}.zeros", (0.0,) * GROUPS, "float32")
    value = net.op("InstanceNormalization", name, [value, ones, zeros], {"epsilon": 1e-5})
    sides = net.constant(f"{name}.image", (-1, x.channels, x.height, x.width), "int64")
    value = net.op("Reshape", f"{name}.pixels", [value, sides])
    scale = net.filled(f"{name}.weight", (x.channels, 1, 1), 1.0)
    value = net.op("Mul", f"{name}.scale", [value, scale])
    bias = net.filled(f"{name}.bias", (x.channels, 1, 1))
    return replace(x, value=net.op("Add", f"{name}.add", [value, bias]))


def residual(layers: Layers, x: Map, out: int, context: Context | None = None) -> Map:
    """Two normalised convolutions, between which the time's features are added."""
    h = layers.activate(group_norm(layers, x), SILU)
    h = layers.conv(h, out, 3, norm=False, act=NONE)
    if context is not None:
        net, name = layers.net, layers.name("time")
        time = project(net, context.time, name, (context.wide, out))
        shape = net.constant(f"{name}.shape", (-1, out, 1, 1), "int64")
        h = layers.add(h, Map(net.op("Reshape", f"{name}.pixel", [time, shape]), out, 1, 1))
    h = layers.activate(group_norm(layers, h), SILU)
    h = layers.conv(h, out, 3, norm=False, act=NONE)
    if out != x.channels:
        x = layers.conv(x, out, norm=False, act=NONE)
    return layers.add(h, x)


def transformed(layers: Layers, x: Map, context: Context) -> Map:
    """Attention between pixels, from pixels to words, and a gated perceptron."""
    net, features, name = layers.net, x.channels, layers.name("transformer")
    width = Width(x.height * x.width, features, context.heads_of(features))
    h = layers.conv(group_norm(layers, x), features, norm=False, act=NONE)
    value = rows(layers, h)
    own = layer_norm(net, value, f"{name}.norm1", features)
    own = attend_unbiased(net, own, (own, width.tokens, features), f"{name}.self", width)
    value = net.op("Add", f"{name}.add1", [value, own])
    seen = layer_norm(net, value, f"{name}.norm2", features)
    words = (context.words, context.tokens, context.written)
    seen = attend_unbiased(net, seen, words, f"{name}.words", width)
    value = net.op("Add", f"{name}.add2", [value, seen])
    wide = _gated(net, layer_norm(net, value, f"{name}.norm3", features), f"{name}.mlp", features)
    value = net.op("Add", f"{name}.add3", [value, wide])
    h = image(layers, value, features, x.height, x.width)
    return layers.add(layers.conv(h, features, norm=False, act=NONE), x)


def pixels(layers: Layers, x: Map) -> Map:
    """Attention between all pixels by one head, added to them."""
    width = Width(x.height * x.width, x.channels, 1)
    value = rows(layers, group_norm(layers, x))
    name = layers.name("attention")
    value = attend(layers.net, value, value, width.tokens, name, width)
    return layers.add(x, image(layers, value, x.channels, x.height, x.width))


def _gated(net: Net, x: ir.Value, name: str, features: int) -> ir.Value:
    """A perceptron whose hidden features are gated by as many others."""
    hidden = 4 * features
    h = project(net, x, f"{name}.fc1", (features, 2 * hidden))
    value, gate = net.ops("Split", f"{name}.split", [h], {"axis": -1, "num_outputs": 2}, outputs=2)
    gate = net.op("Gelu", f"{name}.gelu", [gate])
    h = net.op("Mul", f"{name}.gated", [value, gate])
    return project(net, h, f"{name}.fc2", (hidden, features))
