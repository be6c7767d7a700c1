"""ResNet-18. Source: He et al., "Deep residual learning for image recognition", 2016."""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.builder import (
    Net,
    batch_norm,
    conv,
    global_pool,
    image_shape,
    linear,
    max_pool,
    relu,
)

WIDTHS = (64, 128, 256, 512)


def resnet18(
    batch: int | None = None, classes: int = 10, *, image_size: int | None = 32, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes) with the stem for small images: one 3 x 3 convolution.

    ``image_size=None`` leaves height and width symbolic.
    """
    net = Net("resnet18", image_shape(batch, 3, image_size), seed=seed)
    h = _conv_norm(net, net.x, "conv1", "bn1", (3, 64), kernel=3, stride=1)
    return _trunk(net, relu(net, h, "relu1"), classes)


def resnet18_224(
    batch: int | None = None, classes: int = 1000, *, image_size: int | None = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes) with ImageNet's stem: 7 x 7 stride 2, then max pooling."""
    net = Net("resnet18_224", image_shape(batch, 3, image_size), seed=seed)
    h = _conv_norm(net, net.x, "conv1", "bn1", (3, 64), kernel=7, stride=2)
    h = max_pool(net, relu(net, h, "relu1"), "maxpool", (3, 3), stride=2, pad=1)
    return _trunk(net, h, classes)


def _trunk(net: Net, h: ir.Value, classes: int) -> ir.Model:
    channels = WIDTHS[0]
    for stage, width in enumerate(WIDTHS, start=1):
        for block in range(2):
            stride = 2 if stage > 1 and block == 0 else 1
            h = _basic_block(net, h, f"layer{stage}.{block}", (channels, width), stride)
            channels = width
    return net.finish(linear(net, global_pool(net, h), "fc", (channels, classes)), classes)


def _basic_block(
    net: Net, x: ir.Value, name: str, channels: tuple[int, int], stride: int
) -> ir.Value:
    h = _conv_norm(net, x, f"{name}.conv1", f"{name}.bn1", channels, kernel=3, stride=stride)
    h = relu(net, h, f"{name}.relu1")
    width = (channels[1], channels[1])
    h = _conv_norm(net, h, f"{name}.conv2", f"{name}.bn2", width, kernel=3, stride=1)
    shortcut = x
    if stride != 1 or channels[0] != channels[1]:
        shortcut = _conv_norm(
            net,
            x,
            f"{name}.downsample.conv",
            f"{name}.downsample.bn",
            channels,
            kernel=1,
            stride=stride,
        )
    return relu(net, net.op("Add", f"{name}.add", [h, shortcut]), f"{name}.relu2")


def _conv_norm(
    net: Net,
    x: ir.Value,
    conv_name: str,
    norm_name: str,
    channels: tuple[int, int],
    *,
    kernel: int,
    stride: int,
) -> ir.Value:
    h = conv(
        net,
        x,
        conv_name,
        channels,
        (kernel, kernel),
        stride=stride,
        pad=kernel // 2,
        bias=False,
    )
    return batch_norm(net, h, norm_name, channels[1])
