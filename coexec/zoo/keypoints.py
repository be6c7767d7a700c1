"""Joints of persons: OpenPose and PoseNet.

Sources: Cao et al., "OpenPose: Realtime multi-person 2D pose estimation using part affinity
fields", 2019 (18 joints, six stages); Papandreou et al., "PersonLab", 2018, on the first MobileNet,
a sixteenth of the image wide.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from coexec.zoo.layers import NONE, RELU6, Layers, Map
from coexec.zoo.mobilenet_v3 import V1

VGG = "64 64 M 128 128 M 256 256 256 256 M 512 512 256 128"
STAGES = 6


def openpose(
    batch: int | None = None, classes: int = 57, *, image_size: int = 224, seed: int = 0
) -> ir.Model:
    """(N, 3, size, size) -> fields and joints (N, classes, size / 8, size / 8); 2/3 are fields."""
    layers = Layers("openpose", batch, (3, image_size, image_size), seed)
    x = layers.x
    for item in VGG.split():
        x = layers.max_pool(x, 2, 2) if item == "M" else _plain(layers, x, int(item), 3)
    outs = (classes * 2 // 3, classes - classes * 2 // 3)
    found = [_branch(layers, x, out, (3, 3, 3), 512) for out in outs]
    for _ in range(STAGES - 1):
        h = layers.concat(*found, x)
        found = [_branch(layers, h, out, (7,) * 5, 128) for out in outs]
    return layers.finish(layers.concat(*found))


def posenet_mobilenet(
    batch: int | None = None,
    classes: int = 17,
    *,
    height: int = 513,
    width: int = 257,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, height, width) -> maps of joints, offsets, displacements of 16 pairs both ways."""
    layers = Layers("posenet_mobilenet", batch, (3, height, width), seed, RELU6)
    x = layers.conv(layers.x, 32, 3, stride=2, norm=False)
    for out, stride in V1:
        # A sixteenth of the image is kept, and dilated instead.
        kept = out == 1024
        h = layers.conv(
            x,
            x.channels,
            3,
            stride=1 if kept else stride,
            groups=x.channels,
            dilation=2 if kept and stride == 1 else 1,
            norm=False,
        )
        x = layers.conv(h, out, norm=False)
    heads = [_plain(layers, x, out, 1, NONE) for out in (classes, 2 * classes, 32, 32)]
    return layers.finish(replace(layers.concat(*heads)))


def _branch(layers: Layers, x: Map, out: int, kernels: tuple[int, ...], wide: int) -> Map:
    for kernel in kernels:
        x = _plain(layers, x, 128, kernel)
    return _plain(layers, _plain(layers, x, wide, 1), out, 1, NONE)


def _plain(layers: Layers, x: Map, out: int, kernel: int, act: str | None = None) -> Map:
    return layers.conv(x, out, kernel, norm=False, act=act)
