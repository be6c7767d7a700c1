"""Stacks of inverted residuals that were found by search, block by block.

Sources: Stamoulis et al., "Single-Path NAS", 2019; Wu et al., "FBNet: Hardware-aware efficient
ConvNet design via differentiable neural architecture search", 2019, FBNet-C; Cai et al.,
"ProxylessNAS: Direct neural architecture search on target task and hardware", 2019, for CPUs, GPUs
and, 1.4 times as wide, phones. Sizes as in the pytorchcv collection.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.efficientnet import Stage, stage_of
from coexec.zoo.layers import Layers

Rows = tuple[tuple[int, int, int, int, int], ...]
"""Expansion, kernel, stride of the first block, channels, blocks."""
SPNASNET: Rows = (
    (1, 3, 1, 16, 1),
    (3, 3, 2, 24, 3),
    (6, 5, 2, 40, 1),
    (3, 3, 1, 40, 3),
    (6, 5, 2, 80, 1),
    (3, 3, 1, 80, 3),
    (6, 5, 1, 96, 1),
    (3, 5, 1, 96, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
FBNET_C: Rows = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 1),
    (1, 3, 1, 24, 2),
    (6, 5, 2, 32, 1),
    (3, 5, 1, 32, 1),
    (6, 5, 1, 32, 1),
    (6, 3, 1, 32, 1),
    (6, 5, 2, 64, 1),
    (3, 5, 1, 64, 1),
    (6, 5, 1, 64, 2),
    (6, 5, 1, 112, 3),
    (3, 5, 1, 112, 1),
    (6, 5, 2, 184, 4),
    (6, 3, 1, 352, 1),
)
PROXYLESS_CPU: Rows = (
    (1, 3, 1, 24, 1),
    (6, 3, 2, 32, 1),
    (3, 3, 1, 32, 3),
    (6, 3, 2, 48, 1),
    (3, 3, 1, 48, 2),
    (3, 5, 1, 48, 1),
    (6, 3, 2, 88, 1),
    (3, 3, 1, 88, 1),
    (6, 5, 1, 104, 1),
    (3, 3, 1, 104, 3),
    (6, 5, 2, 216, 1),
    (3, 5, 1, 216, 2),
    (3, 3, 1, 216, 1),
    (6, 5, 1, 360, 1),
)
PROXYLESS_GPU: Rows = (
    (1, 3, 1, 24, 1),
    (3, 5, 2, 32, 1),
    (3, 7, 2, 56, 1),
    (3, 3, 1, 56, 1),
    (6, 7, 2, 112, 1),
    (3, 5, 1, 112, 1),
    (6, 5, 1, 128, 1),
    (3, 3, 1, 128, 1),
    (3, 5, 1, 128, 1),
    (6, 7, 2, 256, 3),
    (6, 5, 1, 256, 1),
    (6, 7, 1, 432, 1),
)
PROXYLESS_MOBILE_14: Rows = (
    (1, 3, 1, 24, 1),
    (3, 5, 2, 40, 1),
    (3, 3, 1, 40, 1),
    (3, 7, 2, 56, 1),
    (3, 3, 1, 56, 1),
    (3, 5, 1, 56, 2),
    (6, 7, 2, 112, 1),
    (3, 5, 1, 112, 3),
    (6, 5, 1, 136, 1),
    (3, 5, 1, 136, 3),
    (6, 7, 2, 256, 2),
    (3, 7, 1, 256, 2),
    (6, 7, 1, 448, 1),
)


def spnasnet(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """Single-Path NAS: (N, 3, size, size) -> (N, classes)."""
    layers = Layers("spnasnet", batch, (3, image_size, image_size), seed)
    return _network(layers, 32, SPNASNET, 1280, classes)


def fbnet_c(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """FBNet-C: (N, 3, size, size) -> (N, classes)."""
    layers = Layers("fbnet_c", batch, (3, image_size, image_size), seed)
    return _network(layers, 16, FBNET_C, 1984, classes, pointwise=True)


def proxyless_cpu(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """ProxylessNAS for CPUs: (N, 3, size, size) -> (N, classes)."""
    layers = Layers("proxyless_cpu", batch, (3, image_size, image_size), seed)
    return _network(layers, 40, PROXYLESS_CPU, 1432, classes)


def proxyless_gpu(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """ProxylessNAS for GPUs: (N, 3, size, size) -> (N, classes)."""
    layers = Layers("proxyless_gpu", batch, (3, image_size, image_size), seed)
    return _network(layers, 40, PROXYLESS_GPU, 1728, classes)


def proxyless_mobile_14(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """ProxylessNAS for phones, 1.4 times as wide: (N, 3, size, size) -> (N, classes)."""
    layers = Layers("proxyless_mobile_14", batch, (3, image_size, image_size), seed)
    return _network(layers, 48, PROXYLESS_MOBILE_14, 1792, classes)


def _network(
    layers: Layers, stem: int, rows: Rows, head: int, classes: int, *, pointwise: bool = False
) -> ir.Model:
    """``stem`` and ``head``: channels of the first and of the last convolution."""
    x = layers.conv(layers.x, stem, 3, stride=2)
    for row in rows:
        x = stage_of(layers, x, Stage(*row, excited=False, pointwise=pointwise))
    return layers.logits(layers.conv(x, head), classes)
