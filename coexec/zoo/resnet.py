"""ResNet-18 and ResNet-50.

Source: He et al., "Deep residual learning for image recognition", 2016. The bottleneck's stride is
in its 3 x 3 convolution ("v1.5"), as in PyTorch's and NVIDIA's models.
"""

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
DEPTHS_50 = (3, 4, 6, 3)
"""Bottlenecks in each stage of ResNet-50."""
EXPANSION = 4
"""A bottleneck has so many times as many channels outside as inside."""
BRANCH_SCALE = 0.25
"""First scale of a bottleneck branch: 16 sums of equal parts would grow a thousandfold (Goyal et
al., "Accurate, large minibatch SGD", 2017, begin with 0)."""


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
    return _trunk(net, _imagenet_stem(net), classes)


def resnet50(
    batch: int | None = None, classes: int = 1000, *, image_size: int | None = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes) with ImageNet's stem and bottleneck blocks."""
    net = Net("resnet50", image_shape(batch, 3, image_size), seed=seed)
    h, channels = _imagenet_stem(net), WIDTHS[0]
    for stage, (width, depth) in enumerate(zip(WIDTHS, DEPTHS_50, strict=True), start=1):
        for block in range(depth):
            stride = 2 if stage > 1 and block == 0 else 1
            h = _bottleneck(net, h, f"layer{stage}.{block}", channels, width, stride)
            channels = EXPANSION * width
    return net.finish(linear(net, global_pool(net, h), "fc", (channels, classes)), classes)


def _imagenet_stem(net: Net) -> ir.Value:
    """(N, 3, size, size) -> (N, 64, size / 4, size / 4)."""
    h = _conv_norm(net, net.x, "conv1", "bn1", (3, WIDTHS[0]), kernel=7, stride=2)
    return max_pool(net, relu(net, h, "relu1"), "maxpool", (3, 3), stride=2, pad=1)


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
    return _add_shortcut(net, x, h, name, channels, stride, f"{name}.relu2")


def _bottleneck(
    net: Net, x: ir.Value, name: str, channels: int, width: int, stride: int
) -> ir.Value:
    h = _conv_norm(net, x, f"{name}.conv1", f"{name}.bn1", (channels, width), kernel=1, stride=1)
    h = relu(net, h, f"{name}.relu1")
    h = _conv_norm(net, h, f"{name}.conv2", f"{name}.bn2", (width, width), kernel=3, stride=stride)
    h = relu(net, h, f"{name}.relu2")
    wide = EXPANSION * width
    h = conv(net, h, f"{name}.conv3", (width, wide), (1, 1), bias=False)
    h = batch_norm(net, h, f"{name}.bn3", wide, scale=BRANCH_SCALE)
    return _add_shortcut(net, x, h, name, (channels, wide), stride, f"{name}.relu3")


def _add_shortcut(
    net: Net,
    x: ir.Value,
    h: ir.Value,
    name: str,
    channels: tuple[int, int],
    stride: int,
    relu_name: str,
) -> ir.Value:
    """The block's input, projected where its size changes, added to the branch ``h``."""
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
    return relu(net, net.op("Add", f"{name}.add", [h, shortcut]), relu_name)


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
