"""GhostNet.

Source: Han et al., "GhostNet: More features from cheap operations", 2020, table 1.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.builder import dropout, linear
from coexec.zoo.layers import HARDSIGMOID, NONE, RELU, Layers, Map, divisible

ROWS = (
    (3, 16, 16, False, 1),
    (3, 48, 24, False, 2),
    (3, 72, 24, False, 1),
    (5, 72, 40, True, 2),
    (5, 120, 40, True, 1),
    (3, 240, 80, False, 2),
    (3, 200, 80, False, 1),
    (3, 184, 80, False, 1),
    (3, 184, 80, False, 1),
    (3, 480, 112, True, 1),
    (3, 672, 112, True, 1),
    (5, 672, 160, True, 2),
    (5, 960, 160, False, 1),
    (5, 960, 160, True, 1),
    (5, 960, 160, False, 1),
    (5, 960, 160, True, 1),
)
"""Kernel, channels inside and of the result, excitation, stride."""
STEM, HEAD, HIDDEN = 16, 960, 1280


def ghostnet(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("ghostnet", batch, (3, image_size, image_size), seed)
    x = layers.conv(layers.x, STEM, 3, stride=2)
    for kernel, inside, out, excited, stride in ROWS:
        x = _bottleneck(layers, x, (kernel, inside, out), stride, excited=excited)
    x = layers.squeeze(layers.conv(x, HEAD))
    x = layers.conv(x, HIDDEN)
    flat = layers.net.op("Flatten", "flatten", [x.value], {"axis": 1})
    flat = dropout(layers.net, flat, "dropout", 0.2)
    return layers.net.finish(linear(layers.net, flat, "fc", (HIDDEN, classes)), classes)


def _bottleneck(
    layers: Layers, x: Map, sizes: tuple[int, int, int], stride: int, *, excited: bool
) -> Map:
    """Two ghost modules beside a shortcut; ``sizes``: kernel, channels inside and of the result."""
    kernel, inside, out = sizes
    h = _ghost(layers, x, inside, RELU)
    if stride > 1:
        h = layers.depthwise(h, kernel, stride=stride, act=NONE)
    if excited:
        h = layers.excite(h, divisible(inside / 4, 4), gate=HARDSIGMOID)
    h = _ghost(layers, h, out, NONE)
    if stride > 1 or x.channels != out:
        x = layers.depthwise(x, kernel, stride=stride, act=NONE)
        x = layers.conv(x, out, act=NONE)
    return layers.add(h, x)


def _ghost(layers: Layers, x: Map, out: int, act: str) -> Map:
    """Half of the channels by a 1 x 1 convolution, the others from these, one by one."""
    half = layers.conv(x, out // 2, act=act)
    return layers.concat(half, layers.depthwise(half, 3, act=act))
