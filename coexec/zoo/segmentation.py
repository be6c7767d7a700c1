"""Segmentation on dilated backbones: FCN, DeepLab v3 and v3+, PSPNet.

Sources: Long et al., "Fully convolutional networks for semantic segmentation", 2015, and Chen et
al., "Rethinking atrous convolution for semantic image segmentation", 2017, both on ResNet-50 as in
torchvision; Chen et al., "Encoder-decoder with atrous separable convolution", 2018, on MobileNetV2
and on the modified Xception; Zhao et al., "Pyramid scene parsing network", 2017, on ResNet-101.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from coexec.zoo.layers import NONE, RELU, RELU6, Layers, Map
from coexec.zoo.mobilenet import STAGES
from coexec.zoo.residual import RESNET50, RESNET101, stages, stem

RATES = (12, 24, 36)
BINS = (1, 2, 3, 6)
MIDDLE = 16
"""Blocks of the Xception's middle flow."""


def fcn_resnet50(
    batch: int | None = None, classes: int = 21, *, image_size: int = 520, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes, size, size)."""
    layers = Layers("fcn_resnet50", batch, (3, image_size, image_size), seed)
    x = stages(layers, stem(layers), replace(RESNET50, dilated=2))[-1]
    return _upsampled(layers, layers.conv(x, 512, 3), classes)


def deeplabv3_resnet50(
    batch: int | None = None, classes: int = 21, *, image_size: int = 520, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes, size, size)."""
    layers = Layers("deeplabv3_resnet50", batch, (3, image_size, image_size), seed)
    x = stages(layers, stem(layers), replace(RESNET50, dilated=2))[-1]
    branches = [layers.conv(x, 256)]
    branches += [layers.conv(x, 256, 3, dilation=rate) for rate in RATES]
    x = layers.conv(layers.concat(*branches, _pooled(layers, x, 256)), 256)
    return _upsampled(layers, layers.conv(x, 256, 3), classes)


def pspnet101(
    batch: int | None = None, classes: int = 150, *, image_size: int = 473, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes, size, size); a size of one more than eights."""
    layers = Layers("pspnet101", batch, (3, image_size, image_size), seed)
    x = layers.conv(layers.conv(layers.x, 64, 3, stride=2), 64, 3)
    x = layers.max_pool(layers.conv(x, 128, 3), 3, 2, 1)
    x = stages(layers, x, replace(RESNET101, dilated=2))[-1]
    found = [x]
    for bins in BINS:
        size = x.height // bins
        few = layers.conv(layers.average_pool(x, size, size), 512)
        found.append(layers.resize_to(few, x))
    return _upsampled(layers, layers.conv(layers.concat(*found), 512, 3), classes)


def deeplab_xception(
    batch: int | None = None,
    classes: int = 21,
    *,
    height: int = 480,
    width: int = 520,
    seed: int = 0,
) -> ir.Model:
    """DeepLab v3+ on Xception-65: (N, 3, height, width) -> (N, classes, height, width)."""
    layers = Layers("deeplab_xception", batch, (3, height, width), seed)
    x = layers.conv(layers.conv(layers.x, 32, 3, stride=2), 64, 3)
    x = _xception(layers, x, (128, 128, 128), 2)
    x = _xception(layers, x, (256, 256, 256), 2)
    low = x
    x = _xception(layers, x, (728, 728, 728), 2)
    for _ in range(MIDDLE):
        x = _xception(layers, x, (728, 728, 728), 1)
    x = _xception(layers, x, (728, 1024, 1024), 1)
    for out in (1536, 1536, 2048):
        x = layers.activate(_separable(layers, x, out, dilation=2), RELU)
    branches = [_pooled(layers, x, 256), layers.conv(x, 256)]
    branches += [_separable(layers, x, 256, dilation=rate, act=RELU) for rate in (6, 12, 18)]
    x = layers.resize_to(layers.conv(layers.concat(*branches), 256), low)
    x = layers.concat(x, layers.conv(low, 48))
    for _ in range(2):
        x = _separable(layers, x, 256, act=RELU)
    return _upsampled(layers, x, classes)


def deeplab_mobilenet(
    batch: int | None = None, classes: int = 21, *, image_size: int = 513, seed: int = 0
) -> ir.Model:
    """DeepLab v3+ on MobileNetV2, a sixteenth wide: (N, 3, size, size) -> (N, classes, ...)."""
    layers = Layers("deeplab_mobilenet", batch, (3, image_size, image_size), seed, RELU6)
    x = low = layers.conv(layers.x, 32, 3, stride=2)
    dilation = 1
    for expansion, out, blocks, first in STAGES:
        # The last size is kept, and dilated instead.
        kept = out == 160
        for block in range(blocks):
            stride = first if block == 0 and not kept else 1
            x = _inverted(layers, x, (expansion, out), stride, dilation)
        dilation = 2 if kept else dilation
        low = x if out == 24 else low
    layers.act = RELU
    branches = [layers.conv(x, 256)]
    branches += [layers.conv(x, 256, 3, dilation=rate) for rate in (6, 12, 18)]
    x = layers.conv(layers.concat(*branches, _pooled(layers, x, 256)), 256)
    x = layers.concat(layers.resize_to(x, low), layers.conv(low, 48))
    return _upsampled(layers, layers.conv(layers.conv(x, 256, 3), 256, 3), classes)


def _inverted(layers: Layers, x: Map, sizes: tuple[int, int], stride: int, dilation: int) -> Map:
    expansion, out = sizes
    h = x if expansion == 1 else layers.conv(x, expansion * x.channels)
    h = layers.conv(h, h.channels, 3, stride=stride, dilation=dilation, groups=h.channels)
    h = layers.conv(h, out, act=NONE)
    return layers.add(h, x) if stride == 1 and out == x.channels else h


def _xception(layers: Layers, x: Map, widths: tuple[int, int, int], stride: int) -> Map:
    """Three separable convolutions beside a shortcut."""
    h = x
    for place, out in enumerate(widths):
        strided = stride if place == 2 else 1
        h = _separable(layers, layers.activate(h, RELU), out, stride=strided)
    if stride != 1 or x.channels != h.channels:
        x = layers.conv(x, h.channels, stride=stride, pad=0, act=NONE)
    return layers.add(h, x)


def _separable(
    layers: Layers, x: Map, out: int, *, stride: int = 1, dilation: int = 1, act: str = NONE
) -> Map:
    """A depthwise convolution and a 1 x 1 one, normalised both."""
    h = layers.conv(x, x.channels, 3, stride=stride, dilation=dilation, groups=x.channels, act=act)
    return layers.conv(h, out, act=act)


def _pooled(layers: Layers, x: Map, out: int) -> Map:
    """The image's mean, everywhere."""
    return layers.resize_to(layers.conv(layers.squeeze(x), out), x)


def _upsampled(layers: Layers, x: Map, classes: int) -> ir.Model:
    x = layers.conv(x, classes, norm=False, act=NONE)
    return layers.finish(layers.resize_to(x, layers.x))
