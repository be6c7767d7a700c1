"""AOT-GAN, which paints what is missing in an image.

Source: Zeng et al., "Aggregated contextual transformations for high-resolution image inpainting",
2022.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from coexec.zoo.layers import NONE, SIGMOID, TANH, Layers, Map

RATES = (1, 2, 4, 8)
BLOCKS, WIDTH = 8, 256


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
