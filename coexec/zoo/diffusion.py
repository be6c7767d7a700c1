"""Stable Diffusion in parts: the text encoder, the U-Net of a step, ControlNet, and the decoder.

Sources: Rombach et al., "High-resolution image synthesis with latent diffusion models", 2022, in
the sizes of versions 1.5 and 2.1; Radford et al., "Learning transferable visual models from natural
language supervision", 2021, the texts' half of ViT-L/14, and OpenCLIP's of ViT-H/14 for version
2.1; Zhang et al., "Adding conditional control to text-to-image diffusion models", 2023. An input of
several parts holds them one behind the other: latents, features of words, those of the time
(sines), and the control's image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from coexec.zoo.attention import Form, encode
from coexec.zoo.builder import Net
from coexec.zoo.diffusion_blocks import Context, group_norm, pixels, residual, transformed
from coexec.zoo.layers import NONE, SILU, Layers, Map
from coexec.zoo.transformer import Width, layer_norm, project

WORDS, VOCABULARY, LATENTS = 77, 49_408, 4
LEVELS = (1, 2, 4, 4)
"""Channels of each level of the U-Net and of the decoder, in times the first one's."""
DEPTH = 2
"""Residual blocks of each level on the way down; one more on the way up."""
CONTROLS = (16, 32, 96, 256)
"""ControlNet's channels of the image, which is halved before the last three."""


@dataclass(frozen=True)
class Version:
    """Features of a word, and either so many heads or heads of so many features ``each``."""

    written: int
    heads: int = 0
    each: int = 0


FIRST, SECOND = Version(768, heads=8), Version(1024, each=64)


def diffusion_text_encoder(
    batch: int | None = None,
    classes: int = VOCABULARY,
    *,
    depth: int = 12,
    features: int = 768,
    second: bool = False,
    seed: int = 0,
) -> ir.Model:
    """Token ids (N, 77) of ``classes`` -> features (N, 77, features).

    ``second``: with the activation of version 2.1, which has 23 blocks of 1024 features.
    """
    net = Net("diffusion_text_encoder", (batch, WORDS), seed=seed, dtype=ir.DataType.INT64)
    table = net.normal("words", (classes, features), 0.02)
    x = net.op("Gather", "embedding", [table, net.x], {"axis": 0})
    place = net.normal("position", (1, WORDS, features), 0.02)
    x = net.op("Add", "embedding.position", [x, place])
    act, width = "Gelu" if second else "QuickGelu", Width(WORDS, features, features // 64)
    form = Form(width, 4 * features, act=act, causal=True)
    for block in range(depth):
        x = encode(net, x, f"blocks.{block}", form)
    return net.finish(layer_norm(net, x, "norm", features), WORDS, features)


def diffusion_unet(
    batch: int | None = None,
    classes: int = LATENTS,
    *,
    side: int = 64,
    features: int = 320,
    second: bool = False,
    seed: int = 0,
) -> ir.Model:
    """Noise of latents of a ``side``: (N, inputs) -> (N, classes, side, side).

    ``second``: version 2.1, with more features of words and heads of 64 features everywhere.
    """
    version = SECOND if second else FIRST
    shapes = ((LATENTS, side, side), (WORDS, version.written), (features,))
    net, (latents, words, time) = _inputs("diffusion_unet", batch, shapes, seed)
    layers = Layers.behind(net, Map(latents, LATENTS, side, side), SILU)
    context = _context(net, words, time, version, features)
    x = layers.conv(layers.x, features, 3, norm=False, act=NONE)
    x, found = _down(layers, x, context)
    x = _middle(layers, x, context)
    for level in reversed(range(len(LEVELS))):
        out = LEVELS[level] * features
        for _ in range(DEPTH + 1):
            x = residual(layers, layers.concat(x, found.pop()), out, context)
            if level < len(LEVELS) - 1:
                x = transformed(layers, x, context)
        if level:
            x = layers.conv(layers.resize(x, 2), out, 3, norm=False, act=NONE)
    x = layers.activate(group_norm(layers, x), SILU)
    return layers.finish(layers.conv(x, classes, 3, norm=False, act=NONE))


def control_net(
    batch: int | None = None,
    classes: int = 1280,
    *,
    side: int = 64,
    features: int = 320,
    seed: int = 0,
) -> ir.Model:
    """What an image of 8 x ``side`` adds at 13 places of the U-Net: (N, inputs) -> (N, values).

    ``classes`` are the channels of the last one, the U-Net's middle.
    """
    shapes = ((LATENTS, side, side), (WORDS, FIRST.written), (features,), (3, 8 * side, 8 * side))
    net, (latents, words, time, control) = _inputs("control_net", batch, shapes, seed)
    layers = Layers.behind(net, Map(latents, LATENTS, side, side), SILU)
    context = _context(net, words, time, FIRST, features)
    hint = layers.conv(Map(control, 3, 8 * side, 8 * side), CONTROLS[0], 3, norm=False)
    for out in CONTROLS[1:]:
        hint = layers.conv(hint, hint.channels, 3, norm=False)
        hint = layers.conv(hint, out, 3, stride=2, norm=False)
    hint = layers.conv(hint, features, 3, norm=False, act=NONE)
    x = layers.add(layers.conv(layers.x, features, 3, norm=False, act=NONE), hint)
    x, found = _down(layers, x, context)
    added = [layers.conv(each, each.channels, norm=False, act=NONE) for each in found]
    added.append(layers.conv(_middle(layers, x, context), classes, norm=False, act=NONE))
    flat = [
        net.op("Flatten", f"added.{i}", [each.value], {"axis": 1}) for i, each in enumerate(added)
    ]
    count = sum(each.channels * each.height * each.width for each in added)
    return net.finish(net.op("Concat", "added", flat, {"axis": 1}), count)


def diffusion_decoder(
    batch: int | None = None,
    classes: int = 3,
    *,
    side: int = 64,
    features: int = 128,
    seed: int = 0,
) -> ir.Model:
    """Images of latents: (N, 4, side, side) -> (N, classes, 8 * side, 8 * side)."""
    layers = Layers("diffusion_decoder", batch, (LATENTS, side, side), seed, SILU)
    wide = LEVELS[-1] * features
    x = layers.conv(layers.x, LATENTS, norm=False, act=NONE)
    x = residual(layers, layers.conv(x, wide, 3, norm=False, act=NONE), wide)
    x = residual(layers, pixels(layers, x), wide)
    for level in reversed(range(len(LEVELS))):
        out = LEVELS[level] * features
        for _ in range(DEPTH + 1):
            x = residual(layers, x, out)
        if level:
            x = layers.conv(layers.resize(x, 2), out, 3, norm=False, act=NONE)
    x = layers.activate(group_norm(layers, x), SILU)
    return layers.finish(layers.conv(x, classes, 3, norm=False, act=NONE))


def _inputs(
    name: str, batch: int | None, shapes: Sequence[tuple[int, ...]], seed: int
) -> tuple[Net, list[ir.Value]]:
    """Parts of one input, in their shapes."""
    counts = [prod(shape) for shape in shapes]
    net = Net(name, (batch, sum(counts)), seed=seed)
    sizes = net.constant("inputs.sizes", counts, "int64")
    parts = net.ops("Split", "inputs", [net.x, sizes], {"axis": 1}, outputs=len(counts))
    found = []
    for place, (part, shape) in enumerate(zip(parts, shapes, strict=True)):
        sides = net.constant(f"inputs.{place}.shape", (-1, *shape), "int64")
        found.append(net.op("Reshape", f"inputs.{place}", [part, sides]))
    return net, found


def _context(net: Net, words: ir.Value, time: ir.Value, version: Version, features: int) -> Context:
    """Words, and the time by two products, activated as each residual block takes it."""
    wide = 4 * features
    for layer, count in enumerate((features, wide)):
        time = project(net, time, f"time.{layer}", (count, wide))
        gate = net.op("Sigmoid", f"time.{layer}.sigmoid", [time])
        time = net.op("Mul", f"time.{layer}.silu", [time, gate])
    return Context(time, wide, words, WORDS, version.written, version.heads, version.each)


def _down(layers: Layers, x: Map, context: Context) -> tuple[Map, list[Map]]:
    """The way down to the smallest maps, and all maps that the way up takes."""
    found, features = [x], x.channels
    for level, times in enumerate(LEVELS):
        last = level == len(LEVELS) - 1
        for _ in range(DEPTH):
            x = residual(layers, x, times * features, context)
            x = x if last else transformed(layers, x, context)
            found.append(x)
        if not last:
            x = layers.conv(x, x.channels, 3, stride=2, norm=False, act=NONE)
            found.append(x)
    return x, found


def _middle(layers: Layers, x: Map, context: Context) -> Map:
    x = transformed(layers, residual(layers, x, x.channels, context), context)
    return residual(layers, x, x.channels, context)
