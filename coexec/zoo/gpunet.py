"""GPUNet-0: inverted residuals found by search for the least latency on GPUs.

Source: Wang et al., "GPUNet: Searching the deployable convolution neural networks for GPUs", 2022,
the authors' file for 0.65 ms.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.efficientnet import Stage, stage_of
from coexec.zoo.layers import RELU, SILU, Layers

STEM, HEAD = 32, 1280
STAGES = (
    (RELU, Stage(5, 3, 2, 32, 2, excited=False, fused=True)),
    (RELU, Stage(5, 3, 2, 64, 3, excited=False, fused=True)),
    (SILU, Stage(5, 3, 2, 256, 3, excited=False)),
    (RELU, Stage(5, 3, 2, 704, 2)),
)
"""Activations and stages behind the stem."""


def gpunet_0(
    batch: int | None = None, classes: int = 1000, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> (N, classes)."""
    layers = Layers("gpunet_0", batch, (3, image_size, image_size), seed)
    x = layers.conv(layers.x, STEM, 3, stride=2)
    for _ in range(2):
        x = layers.add(layers.conv(x, STEM, 3), x)
    for act, stage in STAGES:
        layers.act = act
        x = stage_of(layers, x, stage)
    return layers.logits(layers.conv(x, HEAD), classes)
