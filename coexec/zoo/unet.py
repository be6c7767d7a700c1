"""U-Net with padded convolutions and transposed ones on the way up.

Source: Ronneberger et al., "U-Net: Convolutional networks for biomedical image segmentation", 2015,
in the form that milesial's PyTorch code made common.
"""

from __future__ import annotations

import onnx_ir as ir

from coexec.zoo.layers import NONE, Layers, Map

WIDTHS = (64, 128, 256, 512, 1024)


def unet(
    batch: int | None = None,
    classes: int = 2,
    *,
    height: int = 640,
    width: int = 1280,
    seed: int = 0,
) -> ir.Model:
    """(N, 3, height, width) -> (N, classes, height, width)."""
    layers = Layers("unet", batch, (3, height, width), seed)
    x = _double(layers, layers.x, WIDTHS[0])
    kept = []
    for out in WIDTHS[1:]:
        kept.append(x)
        x = _double(layers, layers.max_pool(x, 2, 2), out)
    for beside in reversed(kept):
        up = layers.transposed(x, beside.channels, act=NONE)
        x = _double(layers, layers.concat(beside, up), beside.channels)
    return layers.finish(layers.conv(x, classes, norm=False, act=NONE))


def _double(layers: Layers, x: Map, out: int) -> Map:
    return layers.conv(layers.conv(x, out, 3), out, 3)
