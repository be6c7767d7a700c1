"""MobileNetV2.

Source: Sandler et al., "MobileNetV2: Inverted residuals and linear bottlenecks", 2018, table 2.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.builder import (
    Net,
    batch_norm,
    conv,
    dropout,
    global_pool,
    image_shape,
    linear,
    require,
)

STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""(expansion, channels, blocks, stride of the first block) of each stage."""


def mobilenetv2(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int | None = 224,
    width: float = 1.0,
    divisor: int = 8,
    expand_first: bool = False,
    dropout_ratio: float = 0.2,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes) for any size, all channels times ``width``.

    Channels are multiples of ``divisor``; with ``expand_first`` the first block has a 1 x 1
    convolution too where it expands nothing. ``image_size=None`` leaves height and width symbolic:
    one file for every size.
    """
    require(width > 0, f"width must be positive, not {width}")
    net = Net("mobilenetv2", image_shape(batch, 3, image_size), seed=seed)
    channels = _scaled(32, width, divisor)
    h = _conv_norm_clip(net, net.x, "features.0", (3, channels), kernel=3, stride=2)
    index = 1
    for expansion, base, blocks, first_stride in STAGES:
        out = _scaled(base, width, divisor)
        for block in range(blocks):
            stride = first_stride if block == 0 else 1
            name = f"features.{index}"
            if expansion == 1 and expand_first:
                both = (channels, channels)
                h = _conv_norm_clip(net, h, f"{name}.expand", both, kernel=1, stride=1)
            h = inverted_residual(net, h, name, (channels, out), expansion, stride)
            channels, index = out, index + 1
    last = _scaled(1280, max(width, 1.0), divisor)
    h = _conv_norm_clip(net, h, f"features.{index}", (channels, last), kernel=1, stride=1)
    h = dropout(net, global_pool(net, h), "classifier.dropout", dropout_ratio)
    return net.finish(linear(net, h, "classifier.fc", (last, classes)), classes)


def _scaled(channels: int, width: float, divisor: int) -> int:
    """The nearest multiple of ``divisor`` that is at most 10 % below the product."""
    target = channels * width
    rounded = max(divisor, int(target + divisor // 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * target else rounded


def inverted_residual(
    net: Net, x: ir.Value, name: str, channels: tuple[int, int], expansion: int, stride: int
) -> ir.Value:
    """A block (N, in, H, W) -> (N, out, H, W) / ``stride`` with ``expansion`` times the channels.

    ``channels`` is (in, out).
    """
    hidden = channels[0] * expansion
    h = x
    if expansion != 1:
        h = _conv_norm_clip(net, h, f"{name}.expand", (channels[0], hidden), kernel=1, stride=1)
    h = _conv_norm_clip(
        net, h, f"{name}.depthwise", (hidden, hidden), kernel=3, stride=stride, groups=hidden
    )
    h = conv(net, h, f"{name}.project.conv", (hidden, channels[1]), (1, 1), bias=False)
    h = batch_norm(net, h, f"{name}.project.bn", channels[1])
    if stride == 1 and channels[0] == channels[1]:
        h = net.op("Add", f"{name}.add", [x, h])
    return h


def _conv_norm_clip(
    net: Net,
    x: ir.Value,
    name: str,
    channels: tuple[int, int],
    *,
    kernel: int,
    stride: int,
    groups: int = 1,
) -> ir.Value:
    h = conv(
        net,
        x,
        f"{name}.conv",
        channels,
        (kernel, kernel),
        stride=stride,
        pad=kernel // 2,
        groups=groups,
        bias=False,
    )
    h = batch_norm(net, h, f"{name}.bn", channels[1])
    low = net.constant(f"{name}.relu6.min", 0, "float32")
    high = net.constant(f"{name}.relu6.max", 6, "float32")
    return net.op("Clip", f"{name}.relu6", [h, low, high])
