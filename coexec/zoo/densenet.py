"""DenseNet.

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
    require,
)

BOTTLENECK = 4
"""A layer's 1 x 1 convolution makes so many times what it adds for its 3 x 3 one."""
DEPTHS = {
    121: (32, (6, 12, 24, 16)),
    161: (48, (6, 12, 36, 24)),
    169: (32, (6, 12, 32, 32)),
    201: (32, (6, 12, 48, 32)),
}
"""Channels that each layer adds, and layers in each dense block, by depth.

A transition halves channels and image between two blocks.
"""


def densenet121(
    batch: int | None = None, classes: int = 1000, *, image_size: int | None = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes); ``image_size=None`` leaves height and width symbolic."""
    return _network(Net("densenet121", image_shape(batch, 3, image_size), seed=seed), 121, classes)


def densenet(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int | None = 224,
    depth: int = 121,
    seed: int = 0,
) -> ir.Model:
    """As :func:`densenet121`, of any depth that was published.

    Raises:
        UsageError: another depth.
    """
    require(depth in DEPTHS, f"DenseNets are {', '.join(map(str, DEPTHS))} deep, not {depth}")
    return _network(Net("densenet", image_shape(batch, 3, image_size), seed=seed), depth, classes)


def _network(net: Net, depth: int, classes: int) -> ir.Model:
    growth, blocks = DEPTHS[depth]
    channels = 2 * growth
    h = conv(net, net.x, "conv0", (3, channels), (7, 7), stride=2, pad=3, bias=False)
    h = max_pool(net, _norm_relu(net, h, "norm0", channels), "pool0", (3, 3), stride=2, pad=1)
    for block, layers in enumerate(blocks, start=1):
        for layer in range(1, layers + 1):
            h = _dense_layer(net, h, f"denseblock{block}.layer{layer}", channels, growth)
            channels += growth
        if block < len(blocks):
            h = _transition(net, h, f"transition{block}", channels)
            channels //= 2
    h = global_pool(net, _norm_relu(net, h, "norm5", channels))
    return net.finish(linear(net, h, "classifier", (channels, classes)), classes)


def _dense_layer(net: Net, x: ir.Value, name: str, channels: int, growth: int) -> ir.Value:
    """All that came before, with ``growth`` channels more."""
    wide = BOTTLENECK * growth
    h = _norm_relu(net, x, f"{name}.norm1", channels)
    h = conv(net, h, f"{name}.conv1", (channels, wide), (1, 1), bias=False)
    h = _norm_relu(net, h, f"{name}.norm2", wide)
    h = conv(net, h, f"{name}.conv2", (wide, growth), (3, 3), pad=1, bias=False)
    return net.op("Concat", f"{name}.concat", [x, h], {"axis": 1})


def _transition(net: Net, x: ir.Value, name: str, channels: int) -> ir.Value:
    h = _norm_relu(net, x, f"{name}.norm", channels)
    h = conv(net, h, f"{name}.conv", (channels, channels // 2), (1, 1), bias=False)
    return average_pool(net, h, f"{name}.pool", (2, 2), stride=2)


def _norm_relu(net: Net, x: ir.Value, name: str, channels: int) -> ir.Value:
    return relu(net, batch_norm(net, x, name, channels), f"{name}.relu")
