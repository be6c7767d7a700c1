"""VGG. Source: Simonyan, Zisserman, "Very deep convolutional networks", 2015."""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.builder import Net, conv, dropout, flatten, linear, max_pool, relu, require
from coexec.zoo.layers import RELU, Layers

VGG11 = ((64,), (128,), (256, 256), (512, 512), (512, 512))
HIDDEN = 4096
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))

PLANS = {
    11: VGG11,
    13: ((64,) * 2, (128,) * 2, (256,) * 2, (512,) * 2, (512,) * 2),
    16: VGG16,
    19: ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4),
}
"""Channels of each convolution, stage by stage, by the number of layers."""


def vgg(
    batch: int | None = None,
    classes: int = 1000,
    *,
    image_size: int = 224,
    depth: int = 16,
    norm: bool = False,
    bias: bool = True,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes), with the 4096 features of the paper.

    ``norm``: batch normalisation behind convolutions, whose ``bias`` is left out if False.

    Raises:
        UsageError: a depth that the paper does not have.
    """
    require(depth in PLANS, f"VGG has {', '.join(map(str, PLANS))} layers, not {depth}")
    layers = Layers("vgg", batch, (3, image_size, image_size), seed)
    x = layers.x
    for widths in PLANS[depth]:
        for width in widths:
            x = layers.conv(x, width, 3, norm=norm, bias=bias)
        x = layers.max_pool(x, 2, 2)
    features = x.channels * x.height * x.width
    flat = flatten(layers.net, x.value)
    for wide in (features, HIDDEN):
        flat = dropout(
            layers.net, layers.dense(flat, (wide, HIDDEN), RELU), layers.name("dropout"), 0.5
        )
    return layers.net.finish(layers.dense(flat, (HIDDEN, classes)), classes)


def vgg11(
    batch: int | None = None,
    classes: int = 10,
    *,
    image_size: int = 32,
    hidden: int = 512,
    dropout_ratio: float = 0.5,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes); ``hidden`` is 4096 in the paper (at 224 x 224)."""
    return _vgg("vgg11", VGG11, batch, classes, image_size, hidden, dropout_ratio, seed)


def vgg16(
    batch: int | None = None,
    classes: int = 10,
    *,
    image_size: int = 32,
    hidden: int = 512,
    dropout_ratio: float = 0.5,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes); ``hidden`` is 4096 in the paper (at 224 x 224)."""
    return _vgg("vgg16", VGG16, batch, classes, image_size, hidden, dropout_ratio, seed)


def vgg16_224(
    batch: int | None = None,
    classes: int = 1000,
    *,
    dropout_ratio: float = 0.5,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, 224, 224) -> (N, classes): the network of the paper, 138 million parameters."""
    return _vgg("vgg16_224", VGG16, batch, classes, 224, 4096, dropout_ratio, seed)


def _vgg(
    name: str,
    stages: tuple[tuple[int, ...], ...],
    batch: int | None,
    classes: int,
    image_size: int,
    hidden: int,
    dropout_ratio: float,
    seed: int,
) -> ir.Model:
    require(image_size >= 32, f"{name} halves the image five times: 32 at least, not {image_size}")
    net = Net(name, (batch, 3, image_size, image_size), seed=seed)
    h, channels = net.x, 3
    for stage, widths in enumerate(stages, start=1):
        for i, width in enumerate(widths, start=1):
            h = conv(net, h, f"conv{stage}_{i}", (channels, width), (3, 3), pad=1)
            h = relu(net, h, f"relu{stage}_{i}")
            channels = width
        h = max_pool(net, h, f"pool{stage}", (2, 2), stride=2)
    features = channels * (image_size // 2 ** len(stages)) ** 2
    h = flatten(net, h)
    for i, shape in enumerate(((features, hidden), (hidden, hidden)), start=6):
        h = relu(net, linear(net, h, f"fc{i}", shape, rectified=True), f"relu{i}")
        h = dropout(net, h, f"dropout{i}", dropout_ratio)
    return net.finish(linear(net, h, "fc8", (hidden, classes)), classes)
