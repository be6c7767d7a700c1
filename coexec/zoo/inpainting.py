"""Networks that paint what is missing in an image: AOT-GAN, LaMa of dilated convolutions.

Sources: Zeng et al., "Aggregated contextual transformations for high-resolution image inpainting",
2022; Suvorov et al., "Resolution-robust large mask inpainting with Fourier convolutions", 2022, the
form that it compares with, each quarter of the channels dilated more; edges count as zeros.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from coexec.zoo.layers import NONE, SIGMOID, TANH, Layers, Map

RATES = (1, 2, 4, 8)
BLOCKS, WIDTH = 8, 256
DILATED, WIDEST, EDGE = 9, 512, 8
"""LaMa's blocks, its channels, and pixels that it sees at each edge and leaves out at its end."""


def aot_gan(
    batch: int | None = None, classes: int = 3, *, image_size: int = 512, seed: int = 0
) -> ir.Model:
    """An image and a mask (N, 4, size, size) -> (N, classes, size, size)."""
    layers = Layers("aot_gan", batch, (4, image_size, image_size), seed)
    x = layers.conv(layers.x, 64, 7, norm=False)
    for out in (128, WIDTH):
        x = layers.conv(x, out, 4, stride=2, pad=1, norm=False)
    for _ in range(BLOCKS):
        x = _block(layers, x)
    for out in (128, 64):
        x = layers.conv(layers.resize(x, 2, linear=True), out, 3, norm=False)
    return layers.finish(layers.conv(x, classes, 3, norm=False, act=TANH))


def _block(layers: Layers, x: Map) -> Map:
    """Four dilations side by side, let through where a gate says so."""
    part = x.channels // len(RATES)
    seen = [layers.conv(x, part, 3, dilation=rate, norm=False) for rate in RATES]
    h = layers.conv(layers.concat(*seen), x.channels, 3, norm=False, act=NONE)
    gate = layers.conv(x, x.channels, 3, norm=False, act=NONE)
    ones = layers.net.filled(f"{layers.name('gate')}.weight", (x.channels,), 1.0)
    inputs = [gate.value, ones, layers.net.filled(f"{layers.name('gate')}.bias", (x.channels,))]
    value = layers.net.op("InstanceNormalization", layers.name("gate"), inputs)
    gate = layers.activate(replace(gate, value=value), SIGMOID)
    one = layers.net.constant(layers.name("one"), 1, "float32")
    closed = replace(gate, value=layers.net.op("Sub", layers.name("closed"), [one, gate.value]))
    return layers.add(layers.multiply(x, closed), layers.multiply(h, gate))


def lama_dilated(
    batch: int | None = None, classes: int = 3, *, image_size: int = 512, seed: int = 0
) -> ir.Model:
    """An image and a mask (N, 4, size, size) -> (N, classes, size, size)."""
    layers = Layers("lama_dilated", batch, (4, image_size, image_size), seed)
    x = layers.conv(layers.x, 64, 7, pad=EDGE + 2, bias=True)
    while x.channels < WIDEST:
        x = layers.conv(x, 2 * x.channels, 3, stride=2, bias=True)
    for _ in range(DILATED):
        h = layers.activate(layers.norm(_summed(layers, x)), layers.act)
        x = layers.add(x, layers.norm(_summed(layers, h)))
    while x.channels > 64:
        x = _doubled(layers, x, x.channels // 2)
    x = layers.conv(x, classes, 7, norm=False, act=SIGMOID)
    net, inner = layers.net, (EDGE, EDGE)
    bounds = [
        net.constant(f"image.{end}", value, "int64")
        for end, value in (
            ("start", inner),
            ("end", (EDGE + image_size, EDGE + image_size)),
            ("axes", (2, 3)),
        )
    ]
    value = net.op("Slice", "image", [x.value, *bounds])
    return net.finish(value, classes, image_size, image_size)


def _summed(layers: Layers, x: Map) -> Map:
    """The sum of a convolution of each quarter of the channels, dilated by 1, 2, 4 and 8."""
    parts = layers.split(x, *([x.channels // len(RATES)] * len(RATES)))
    found = [
        layers.conv(part, x.channels, 3, dilation=rate, norm=False, act=NONE)
        for part, rate in zip(parts, RATES, strict=True)
    ]
    total = found[0]
    for each in found[1:]:
        total = layers.add(total, each)
    return total


def _doubled(layers: Layers, x: Map, out: int) -> Map:
    """A transposed convolution of 3 x 3 to twice the height and width."""
    net, name = layers.net, layers.name("doubled")
    inputs = [
        x.value,
        net.normal(f"{name}.weight", (x.channels, out, 3, 3), 0.02),
        net.filled(f"{name}.bias", (out,)),
    ]
    attributes = {
        "kernel_shape": (3, 3),
        "strides": (2, 2),
        "pads": (1, 1, 1, 1),
        "output_padding": (1, 1),
    }
    value = net.op("ConvTranspose", name, inputs, attributes)
    found = layers.norm(Map(value, out, 2 * x.height, 2 * x.width))
    return layers.activate(found, layers.act)
