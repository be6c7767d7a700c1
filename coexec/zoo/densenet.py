"""DenseNet-121.

Source: Huang et al., "Densely connected convolutional networks", 2017, table 1 (DenseNet-BC).
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.builder import (
    Net,
    average_pool,
    batch_norm,
    conv,
    global_pool,
    image_shape,
    linear,
    max_pool,
    relu,
)

GROWTH = 32
"""Channels that each layer adds."""
BOTTLENECK = 4
"""A layer's 1 x 1 convolution makes so many times ``GROWTH`` channels for its 3 x 3 one."""
BLOCKS = (6, 12, 24, 16)
"""Layers in each dense block; a transition halves channels and image between two."""


def densenet121(
    batch: int | None = None, classes: int = 1000, *, image_size: int | None = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes); ``image_size=None`` leaves height and width symbolic."""
    net = Net("densenet121", image_shape(batch, 3, image_size), seed=seed)
    channels = 2 * GROWTH
    h = conv(net, net.x, "conv0", (3, channels), (7, 7), stride=2, pad=3, bias=False)
    h = max_pool(net, _norm_relu(net, h, "norm0", channels), "pool0", (3, 3), stride=2, pad=1)
    for block, layers in enumerate(BLOCKS, start=1):
        for layer in range(1, layers + 1):
            h = _dense_layer(net, h, f"denseblock{block}.layer{layer}", channels)
            channels += GROWTH
        if block < len(BLOCKS):
            h = _transition(net, h, f"transition{block}", channels)
            channels //= 2
    h = global_pool(net, _norm_relu(net, h, "norm5", channels))
    return net.finish(linear(net, h, "classifier", (channels, classes)), classes)


def _dense_layer(net: Net, x: ir.Value, name: str, channels: int) -> ir.Value:
    """All that came before, with ``GROWTH`` channels more."""
    wide = BOTTLENECK * GROWTH
    h = _norm_relu(net, x, f"{name}.norm1", channels)
    h = conv(net, h, f"{name}.conv1", (channels, wide), (1, 1), bias=False)
    h = _norm_relu(net, h, f"{name}.norm2", wide)
    h = conv(net, h, f"{name}.conv2", (wide, GROWTH), (3, 3), pad=1, bias=False)
    return net.op("Concat", f"{name}.concat", [x, h], {"axis": 1})


def _transition(net: Net, x: ir.Value, name: str, channels: int) -> ir.Value:
    h = _norm_relu(net, x, f"{name}.norm", channels)
    h = conv(net, h, f"{name}.conv", (channels, channels // 2), (1, 1), bias=False)
    return average_pool(net, h, f"{name}.pool", (2, 2), stride=2)


def _norm_relu(net: Net, x: ir.Value, name: str, channels: int) -> ir.Value:
    return relu(net, batch_norm(net, x, name, channels), f"{name}.relu")
